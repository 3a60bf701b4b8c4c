import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.evaluate.extract import NEXT_QUESTION, extract, first_letter_2023, settled
from pandallm.tasks.types import LETTERS

OPTIONS = ["旅行", "环境", "工作", "家庭"]
LATIN = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)
#: Every printable ASCII character in its full width.
WIDE = {c: c + 0xFEE0 for c in range(0x21, 0x7F)} | {0x20: 0x3000}

NAMES_B = [
    # a letter alone
    *(
        "B",
        " B。",
        "Ｂ",
        "B.",
        "B)",
        "(B)",
        "（B）",
        "【B】",
        "[B]",
        "「B」",
        "“B”",
        "<B>",
        "`B`",
        "**B**",
        "**B.**",
        "$B$",
    ),
    *("Ⓑ", "②", "b", "(b)", "b.", "B？", "选项B", "选B", "選B", "Option B", "B\t", "B\n\n阅读下面的文章并从选项中"),
    *("B\n因为他要保护环境。", "B。\n答案：C", "\n\nB\n\n"),
    # opening
    *(
        "（B）正确",
        "B项",
        "B项符合题意",
        "B选项正确",
        "B是正确的",
        "B，因为文中提到了环境。",
        "B: 环境",
        "B：环境",
        "B、环境",
    ),
    *("B. 环境", "B) 环境", "(B) 环境", "B环境", "B because the text says so", "B is correct.", "B, not C"),
    # 答案
    *(
        "答案：B",
        "答案:B",
        "答案是B。",
        "答案为B",
        "答案為B",
        "答案B",
        "答案（B）",
        "答案是：（B）",
        "答案：\nB",
        "答案：\n\n（B）",
        "答案应为B",
    ),
    *(
        "答案选B",
        "答案应该选B",
        "【答案】B",
        "【答案】 B",
        "[答案]B",
        "**答案**：B",
        "**答案：B**",
        "### 答案：B",
        "# 答案\nB",
        "答案:**B**",
    ),
    *(
        "答案:[B]",
        "答案: `B`",
        "答案：$B$",
        "答案：「B」",
        "答案：②",
        "答案：Ⓑ",
        "答案：b",
        "答：B",
        "答：选B",
        "我的答案是B",
        "正确答案：B、环境",
    ),
    *(
        "正確答案是B",
        "正确选项为B",
        "正确选项是 B",
        "正确的是B",
        "正确的一项是B",
        "答案：B环境",
        "答案：B. 环境",
        "答案是B项",
        "答案是B，不是C",
    ),
    *(
        "答案：B\n\n问题：下一题\n答案：C",
        "答案：B\n阅读下面的文章\n答案：D",
        "这道题的答案是B选项。",
        "解析：他保护环境。\n答案：B",
    ),
    # English
    *(
        "ANSWER：B",
        "ANSWER: B",
        "Answer: b",
        "Answer is B",
        "The answer is B.",
        "The answer is (B) 环境",
        "the answer is b",
        "Answer: B) 环境",
    ),
    *(
        "The correct answer is B",
        "**Answer:** B",
        "A good answer is B",
        "The best choice is B",
        "Option B is correct",
        "I would choose B",
        "I pick B.",
    ),
    # 选
    *(
        "应选B",
        "应该选B",
        "应选择B项",
        "我选B",
        "本题选B",
        "选（B）",
        "选择②",
        "选择 B",
        "选：B",
        "排除A和C，选B",
        "他说起环境，选择B。",
    ),
    *("选A不对，选B", "如果选A就错了，应该选B", "不选A，选B", "不能选A，只能选B"),
    # verdicts
    *(
        "选项B正确",
        "我认为B是最合适的",
        "A错误，B正确",
        "A是错的，B是对的",
        "A项错误。B项正确，故本题选B。",
        "文中没有说旅行，B项符合原文",
    ),
    # conclusions go before other marks
    *(
        "故选B",
        "故选：B",
        "故答案为B",
        "故答案为：B。",
        "因此选择 B",
        "因此，正确答案是：**B. 环境**",
        "综上，选B",
        "综上所述，答案为B",
    ),
    *(
        "最终答案：B",
        "最后答案是B",
        "答案：A。所以答案是B",
        "有人选A，有人选C，所以正确答案是B",
        "A、C、D项错误，故选B",
        "So the answer is: **B**",
    ),
    *(
        "Final answer: B",
        "Some say the answer is A. Therefore the answer is B.",
        r"\boxed{B}",
        r"$\boxed{B}$",
        r"\boxed{\text{B}}",
        r"答案是A？不，\boxed{B}",
    ),
    # reasoning
    *(
        "<think>选A吧\n不，选C</think>\n答案：B",
        "<think>\n</think>\n\nB",
        "先看选A，再看选C</think>B",
        "＜think＞选A＜/think＞选B",
    ),
    # brackets, bold
    *("我认为应当是（B），理由如下", "It must be **B** then", "看来只有【B】了"),
    # text
    *(
        "环境",
        "环境。",
        "“环境”。",
        "答案：环境",
        "答案是环境。",
        "选环境",
        "应该选环境",
        "选择“环境”",
        "The answer is 环境",
        "环境\n因为",
    ),
    # a repeated list
    *("A: 旅行\nB: 环境\nC: 工作\nD: 家庭\n\n本题的答案是：B", "A: 旅行 B: 环境 C: 工作 D: 家庭 答案：B"),
]

NAMES_NONE = [
    *("", "  \n", "。", "……", "我不知道", "以上都不对", "他去了北京。"),
    # words
    *(
        "DNA",
        "CCTV",
        "A股市场",
        "B超",
        "B超检查",
        "B站",
        "C语言",
        "Bob",
        "AB",
        "ABCD",
        "答案是DNA",
        "答案：B超",
        "选A股",
        "正确答案:ABC",
        "答案：B12",
    ),
    *("A student said so", "A man", "I am sure", "The answer is a dog", "Answer: A student", "A. Smith"),
    # beyond the options
    *("E", "答案是E", "选⑤", "（F）", r"\boxed{E}"),
    # several letters
    *(
        "A和B",
        "A, B",
        "A、B",
        "A或者",
        "A/B",
        "A&C",
        "B or C",
        "B还是C",
        "B 或 C",
        "答案是A或B",
        "答案：B和C",
        "正确答案：B、C",
        "选A、B",
        "B和C都对",
        "（A）（B）",
    ),
    *("A、C、D正确", "A B C D", "A和B\n答案：C"),
    # marks of one rank that differ
    *(
        "答案：A。答案：B",
        "答案：A\n答案：B",
        "答案：A\n……\n答案：B",
        "选A。选B。",
        "因此选A。所以选B。",
        "（A）胜过，（B）也好",
        r"\boxed{A} \boxed{B}",
        "A正确，B正确",
    ),
    # denied
    *(
        "不选A",
        "不选B",
        "不能选B",
        "不应选B",
        "不应该选B",
        "不要选B",
        "别选B",
        "没有选B",
        "并非选B",
        "容易误选B",
        "排除选项B",
        "如果选B",
    ),
    *(
        "答案不是A",
        "答案不可能是B",
        "B不正确",
        "B错误",
        "B项错误",
        "选项B错误",
        "选项B不正确",
        "B的说法错误",
        "选项B有误",
        "option B is wrong",
        "答案：B不对",
    ),
    *("The answer is not B", "I do not choose B"),
    # mentions
    *("选项A提到了旅行", "选项A提到旅行，选项B提到环境", "不是A，是B", "除了B"),
    # contradicted by the text beside it
    *("B: 旅行", "答案：B. 旅行", "(B) 旅行"),
    # lists and echoes
    *(
        "A: 旅行\nB: 环境\nC: 工作",
        "B. 环境\nC. 工作",
        "A: 旅行 B: 环境 C: 工作 D: 家庭",
        "他去了\n\n问题：谁？\n答案：B",
    ),
    # numbers
    *("2", "(2)", "二", "第二个选项", "选第二项", "正确答案是第2个"),
    # text of several, or more than an option's
    *("旅行和工作", "答案：家庭和工作", "答案：旅行\n答案：工作", "他在工作"),
    # reasoning without an end
    *("<think>应该选B", "<think>答案：B\n所以", "<thinking>\nB"),
]


def test_the_tables_are_long_and_without_repeats() -> None:
    assert len(NAMES_B) + len(NAMES_NONE) >= 240
    assert len(set(NAMES_B + NAMES_NONE)) == len(NAMES_B) + len(NAMES_NONE)


@pytest.mark.parametrize("completion", NAMES_B)
def test_forms_that_name_an_option(completion: str) -> None:
    assert extract(completion, OPTIONS) == 1


@pytest.mark.parametrize("completion", NAMES_NONE)
def test_forms_that_name_none(completion: str) -> None:
    assert extract(completion, OPTIONS) is None


@pytest.mark.parametrize("completion", NAMES_B + NAMES_NONE)
def test_full_width_forms_read_the_same(completion: str) -> None:
    assert extract(completion.translate(WIDE), OPTIONS) == extract(completion, OPTIONS)


@pytest.mark.parametrize(
    ("completion", "position"),
    [
        ("①", 0),
        ("C. 工作，因为他很忙", 2),
        ("the answer is a", 0),
        ("A because", 0),
        ("Answer: A because it is", 0),
        ("D：家庭\n解析：他爱家", 3),
        ("A：旅行", 0),
        (r"\boxed{D}", 3),
    ],
)
def test_other_letters(completion: str, position: int) -> None:
    assert extract(completion, OPTIONS) == position


def test_letters_beyond_the_options_do_not_count() -> None:
    assert extract("C", OPTIONS[:2]) is None
    assert extract("答案：D", OPTIONS[:3]) is None
    assert extract("③", OPTIONS[:2]) is None


def test_equal_options_cannot_be_named_by_text() -> None:
    assert extract("五块", ["六块", "五块", "五块"]) is None
    assert extract("六块", ["六块", "五块", "五块"]) == 0


def test_the_2023_reading_takes_what_ours_must_not() -> None:
    assert first_letter_2023("他用DNA证明") == 3
    assert first_letter_2023("CCTV报道") == 2
    assert first_letter_2023("Ｂ") is None
    assert first_letter_2023("答案是B") == 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.sampled_from(["{}", "{}。", "({})", "【{}】", "答案：{}", "答案是{}。", "选{}", "The answer is {}."]),
)
def test_every_form_reads_every_letter_in_both_widths(position: int, form: str) -> None:
    letter = LETTERS[position]
    for spelling in (letter, chr(ord(letter) + 0xFEE0)):
        assert extract(form.format(spelling), OPTIONS) == position
        assert extract(form.format(spelling), OPTIONS[:position]) is None


@settings(max_examples=150, deadline=None)
@given(LATIN, st.sampled_from(["", "这是", "据"]), st.sampled_from(["", "的报道", " said"]))
def test_no_letter_is_read_inside_a_word(word: str, before: str, after: str) -> None:
    assert extract(before + word + after, OPTIONS) is None


#: Text that is dense in what the grammar knows, so that random search meets its branches.
PIECES = st.lists(
    st.sampled_from(
        [
            *"ABCDEab",
            *OPTIONS,
            *"①②（）()【】:：.。、，*$\n ",
            "答案",
            "正确",
            "错误",
            "选",
            "不",
            "选项",
            "故",
            "因此",
            "是",
            "项",
            "answer",
            " is ",
            "option ",
            "<think>",
            "</think>",
            r"\boxed{",
            "}",
            "问题：",
        ]
    ),
    max_size=14,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=40), PIECES), st.integers(0, 4))
def test_anything_is_read_without_failing_and_within_the_options(completion: str, n: int) -> None:
    found = extract(completion, OPTIONS[:n])
    assert found is None or 0 <= found < n


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_width_never_matters(completion: str) -> None:
    assert extract(completion.translate(WIDE), OPTIONS) == extract(completion, OPTIONS)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"选答案是正确项的不（）【】：，。\n 123?", "因此", "最终", "他去了", "xyz", "kl"]),
        max_size=20,
    ).map("".join)
)
def test_text_without_a_letter_or_an_option_names_none(completion: str) -> None:
    assert extract(completion, OPTIONS) is None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from("ABCD"), st.sampled_from(["", "。", "."]), st.one_of(st.text(max_size=30), PIECES))
def test_what_is_settled_does_not_change(letter: str, stop: str, more: str) -> None:
    begun = f"{letter}{stop}\n"
    assert settled(begun, OPTIONS)
    assert extract(begun + more, OPTIONS) == extract(begun, OPTIONS) == LETTERS.index(letter)
    assert not settled(letter, OPTIONS)
    assert not settled(f"{letter}: 旅行\n", OPTIONS)
    assert not settled("<think>\nB\n", OPTIONS)


@pytest.mark.parametrize("beginning", NEXT_QUESTION)
def test_what_follows_the_next_question_is_ignored(beginning: str) -> None:
    assert extract(f"我想选B\n\n{beginning}谁？答案：C", OPTIONS) == 1


@pytest.mark.parametrize(
    "unit", ["*", "[(", "(A", "A、", "答案", "因此", "选 ", "answer is ", "<think>", "A.", "\\boxed{", " "]
)
def test_long_repetitions_take_no_time(unit: str) -> None:
    started = time.process_time()
    extract(unit * 4000, OPTIONS)
    assert time.process_time() - started < 2

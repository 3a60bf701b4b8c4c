import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.evaluate.extract import extract, first_letter_2023, settled
from pandallm.tasks.types import LETTERS

OPTIONS = ["旅行", "环境", "工作", "家庭"]
LATIN = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)


@pytest.mark.parametrize(
    ("completion", "position"),
    [
        ("B", 1),
        (" B。", 1),
        ("Ｂ", 1),
        ("B\n\n阅读下面的文章并从选项中", 1),
        ("（B）正确", 1),
        ("【B】", 1),
        ("②", 1),
        ("B项", 1),
        ("B: 环境", 1),
        ("B环境", 1),
        ("C. 工作，因为他很忙", 2),
        ("答案：B", 1),
        ("答案是B。", 1),
        ("ANSWER：Ｂ", 1),
        ("正确答案为(C)", 2),
        ("正确选项是 D", 3),
        ("答案:**C**", 2),
        ("答案：\nB", 1),
        ("The answer is C.", 2),
        ("the answer is a", 0),
        (r"\boxed{D}", 3),
        ("选B", 1),
        ("因为他说工作，所以选择C。", 2),
        ("我认为应当是（C），理由如下", 2),
        ("工作", 2),
        ("“工作”。", 2),
        ("答案是工作。", 2),
        ("A: 旅行\nB: 环境\nC: 工作\nD: 家庭\n\n本题的答案是：C", 2),
        ("选项C正确", 2),
    ],
)
def test_forms_that_name_an_option(completion: str, position: int) -> None:
    assert extract(completion, OPTIONS) == position


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "  \n",
        "DNA",
        "CCTV",
        "A股市场",
        "B超检查",
        "A student said so",
        "E",
        "答案是E",
        "答案是DNA",
        "正确答案:ABC",
        "A和B",
        "A, B",
        "A或者",
        "答案是A或B",
        "答案：A。答案：B",
        "答案不是A",
        "不选A",
        "选A不对，选B",
        "B: 旅行",
        "A: 旅行\nB: 环境\nC: 工作",
        "他去了\n\n问题：谁？\n答案：B",
        "旅行和工作",
        "我不知道",
    ],
)
def test_forms_that_name_none(completion: str) -> None:
    assert extract(completion, OPTIONS) is None


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


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.integers(0, 4))
def test_anything_is_read_without_failing_and_within_the_options(completion: str, n: int) -> None:
    found = extract(completion, OPTIONS[:n])
    assert found is None or 0 <= found < n


@settings(max_examples=100, deadline=None)
@given(st.sampled_from("ABCD"), st.sampled_from(["", "。", "."]), st.text(max_size=30))
def test_what_is_settled_does_not_change(letter: str, stop: str, more: str) -> None:
    begun = f"{letter}{stop}\n"
    # The next line may make it a list of options, which `settled` must then not have called final.
    if settled(begun, OPTIONS):
        assert extract(begun + more, OPTIONS) == extract(begun, OPTIONS)
    assert not settled(letter, OPTIONS)
    assert not settled(f"{letter}: 旅行\n", OPTIONS)

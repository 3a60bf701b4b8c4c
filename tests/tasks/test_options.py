import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.tasks.options import own_letters, split_group, split_options

#: What an option or a question may hold: anything that is no label and no line break.
WORDS = st.text(st.characters(whitelist_categories=("Lo", "Nd", "Sm")), min_size=1, max_size=12)


@given(
    question=WORDS,
    options=st.lists(WORDS, min_size=3, max_size=7),
    dot=st.sampled_from(["．", ".", "、", "：", " ."]),
    space=st.sampled_from(["\n", "  ", " \n", "\u3000"]),
)
def test_options_written_as_papers_do_are_found(question: str, options: list[str], dot: str, space: str) -> None:
    text = question + "（ \u3000\u3000） " + "".join(f"{space}{x}{dot}{o}" for x, o in zip("ABCDEFG", options)) + "\n"
    found = split_options(text)
    assert found is not None
    assert found[0].startswith(question)
    assert found[1] == options


@given(st.text(max_size=80))
def test_any_text_gives_whole_options_or_none(text: str) -> None:
    found = split_options(text)
    if found is not None:
        question, options = found
        assert question
        assert len(options) >= 3
        assert all(options)
        rest = text
        for part in (question, *options):  # every part stands in the text, in this order
            rest = rest[rest.index(part) + len(part) :]


@given(st.text(max_size=40), st.integers(0, 6))
def test_groups_keep_every_character(text: str, n: int) -> None:
    found = split_group(text, n)
    if found is not None:
        passage, questions = found
        assert len(questions) == n >= 2
        assert re.sub(r"\s", "", passage + "".join(questions)) == re.sub(r"\s", "", text)


def test_letters_in_the_question_do_no_harm() -> None:
    text = "已知 A、B 两点与 DNA. 和集合 A. 有关，则\nA. 一 B. 二\nC. 三 D. 四 DNA."
    assert split_options(text) == ("已知 A、B 两点与 DNA. 和集合 A. 有关，则", ["一", "二", "三", "四 DNA."])


@pytest.mark.parametrize("text", ["选图：\nA． B．\nC． D．\n", "没有选项", "A. 一 B. 二 C. 三", "问：A. 一 B. 二"])
def test_pictures_and_missing_options_are_not_guessed(text: str) -> None:
    assert split_options(text) is None


def test_group_of_numbered_questions() -> None:
    text = "材料。完成 1～2 题。\n1．（4 分）甲（ ） A．一 B．二 C．三\n2 、乙 A．四 B．五 C．六\n"
    found = split_group(text, 2)
    assert found is not None
    assert found[0] == "材料。完成 1～2 题。"
    assert [split_options(t) for t in found[1]] == [
        ("1．（4 分）甲（ ）", ["一", "二", "三"]),
        ("2 、乙", ["四", "五", "六"]),
    ]
    assert split_group(text, 3) is None
    assert split_group("1．甲\n2．乙", 2) is None  # no passage before the first


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("(A)甲", ("A", "甲")),
        ("（B） 乙", ("B", "乙")),
        ("C．丙", ("C", "丙")),
        ("D . 丁", ("D", "丁")),
        ("(A)    A．甲", ("A", "甲")),
        ("(A)B．甲", ("A", "B．甲")),
        ("A甲", ("", "A甲")),
        ("AB. 甲", ("", "AB. 甲")),
        ("甲", ("", "甲")),
    ],
)
def test_own_letters(option: str, parts: tuple[str, str]) -> None:
    assert own_letters([option]) == [parts]

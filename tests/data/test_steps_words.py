"""Characters, words, lines and ends of sentences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.steps.words import (
    HAN,
    KANA,
    LATIN,
    Shape,
    ends_sentence,
    is_running_text,
    lines_of,
    repeated,
    words_by_line,
)


def test_words_by_hand() -> None:
    assert Shape("The cat, 42 cats.").words == 4
    assert Shape("今天天气很好今天").words == pytest.approx(8 / 1.8)
    assert Shape("我用 GPT4 写代码").words == pytest.approx(1 + 5 / 1.8)
    assert Shape("，。！").words == 0
    assert Shape("").words == 0


def test_classes_by_hand() -> None:
    shape = Shape("漢字𠀀 かな ab é1")
    assert (shape.count(HAN), shape.count(KANA), shape.count(LATIN)) == (3, 2, 2)
    assert shape.letters == 8
    assert Shape("GPT 4 + 42").runs_with_letters() == 1


@given(st.text())
def test_letters_are_what_python_calls_letters(text: str) -> None:
    # Planes beyond the first two hold Chinese characters and nothing else that is counted.
    text = "".join(c for c in text if ord(c) < 0x20000)
    assert Shape(text).letters == sum(c.isalnum() and not c.isdecimal() for c in text)


@given(st.text(st.sampled_from("今a1, 。\n\tか")))
def test_words_of_lines_add_up(text: str) -> None:
    words = words_by_line(Shape(text))
    assert len(words) == text.count("\n") + 1
    assert words == pytest.approx([Shape(line).words for line in text.split("\n")])
    assert np.isclose(sum(words), Shape(text).words)


def test_ends_of_sentences() -> None:
    for line in ("好。", "真的吗？", "Yes!", "他说：“好。”", "End.", "算了……", "（完。）", '"No."'):
        assert ends_sentence(line), line
    for line in ("首页", "好，", "更多…", "More...", "", "”", "第1章"):
        assert not ends_sentence(line), line


def test_a_chinese_line_cut_off_after_a_sentence_is_running_text() -> None:
    assert is_running_text("第一句。第二句被切")
    assert is_running_text("结果表明方法有效.与前人一致")
    assert not is_running_text("Home. About us")
    assert not is_running_text("版本2.1中文")


def test_lines_and_repeats() -> None:
    assert lines_of(" a \n\n\tb\n") == ["a", "b"]
    assert repeated(["a", "bc", "a", "bc", "bc"]) == (3, 5)

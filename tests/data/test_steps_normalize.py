"""Normalisation."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.clean_spec import NormalizeStep
from pandallm.data.steps import make_steps, normalize
from pandallm.data.types import Turn

PUNCTUATION = "，。！？；：、（）《》“”‘’「」『』【】…—～·　"


@given(st.text(st.one_of(st.characters(), st.sampled_from("\n\r \t\x00\u200b\ufeff\u2028\x85e\u0301"))))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in once)


@given(st.text(st.characters(codec=None)))
def test_normalising_never_raises(text: str) -> None:
    normalize(text)


def test_by_hand() -> None:
    assert normalize("a\r\nb\rc\u2028d\x85e") == "a\nb\nc\nd\ne"
    assert normalize("a\n \n\t\n\n\nb\n\nc") == "a\n\nb\n\nc"
    assert normalize("\ufeff零\u200b宽\x07") == "零宽"
    assert normalize(PUNCTUATION) == PUNCTUATION
    assert normalize("ＡＢＣ１２３") == "ＡＢＣ１２３"  # NFC, not NFKC: width stays


def test_turns_are_normalised_one_by_one() -> None:
    cleaned = make_steps([NormalizeStep()], "x")((Turn("e", False), Turn("\u0301a\x00", True)), "zh")
    assert cleaned.turns == (Turn("e", False), Turn("\u0301a", True))
    assert cleaned.reason is None


def test_traditional_characters_become_simplified() -> None:
    pytest.importorskip("opencc", reason="OpenCC (pandallm[clean]) is not installed")
    run = make_steps([NormalizeStep(traditional="to_simplified")], "x")
    assert run((Turn("頭髮與發展，「乾坤」：乾燥\r\n", True),), None).turns == (
        Turn("头发与发展，「乾坤」：干燥\n", True),
    )
    assert run((Turn("简体不变。", True),), None).turns == (Turn("简体不变。", True),)

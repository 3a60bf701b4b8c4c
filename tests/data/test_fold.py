"""Key texts: the batch gives the code points of the definition, for all of Unicode."""

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pandallm.data import fold as fold_module
from pandallm.data.fold import FoldedBatch, contamination_batch, contamination_text, fold, fold_batch

PAIRS = [(fold_batch, fold), (contamination_batch, contamination_text)]
#: Characters that interact with their neighbours, blanks of all kinds, and what becomes of them.
AWKWARD = "e\u0301\u0323\u0334\u035c가\u1161\u11a8각ᆨ\u0915\u093c\u09c7\u09be\u0344…Σςσİß①℃㌀ﷺﬁ\u00a0\u3000\u2003\u2028\x1c\x85\t\n  ，。Ａａ１ \u00a8\u200b\ufe0f😀\U0001d6b9\U000e0041"
TEXTS = st.lists(st.one_of(st.text(max_size=20), st.text(AWKWARD, max_size=20)), max_size=8)


def same(batch: FoldedBatch, texts: list[str], definition: Callable[[str], str]) -> None:
    assert len(batch) == len(texts)
    assert [batch.text(i) for i in range(len(batch))] == [definition(t) for t in texts]
    assert (batch.points.dtype, batch.offsets.dtype) == (np.uint32, np.int64)
    assert batch.offsets[-1] == len(batch.points)


@pytest.mark.parametrize(("batch", "definition"), PAIRS)
def test_equals_the_definition_for_any_text(batch: Callable, definition: Callable) -> None:
    @settings(max_examples=400, deadline=None)
    @given(TEXTS)
    @example([])
    @example(["", " ", "a ", " a", "\u3000", ""])
    @example(["한", "글"])
    @example(["甲 ", "  ", " 乙", "\n丙 丁\n", "  戊"])
    @example(["a\u035c\u0334b"])
    @example(["\uac00\u11a8", "\u1100\u1161", "\u09c7\u09be"])
    @example(["e", "\u0301"])  # marks do not reach over to the text before
    @example(["ΑΣ", "Σ.", "ΟΔΟΣ ΟΔΟΣ"])
    @example(["\ud800", "\udc00", "a\ud83d\ude00b"])  # halves of surrogate pairs, as JSON may bring them
    def check(texts: list[str]) -> None:
        same(batch(texts), texts, definition)

    check()


@pytest.mark.parametrize(("batch", "definition"), PAIRS)
@pytest.mark.parametrize("plane", range(17))
def test_equals_the_definition_for_every_code_point(batch: Callable, definition: Callable, plane: int) -> None:
    """Each alone, and between neighbours that would join with it or be parted by it."""
    characters = [chr(c) for c in range(plane << 16, (plane + 1) << 16)]
    if 3 < plane < 14 or plane > 14:
        characters = characters[::97]  # nothing is assigned there
    # U+0334 stands before other marks, U+035C behind most, and neither joins with anything.
    around = ("\uac00{0} \u09c7{0}", "\uac00{0}e{0}\u0301 {0} \u1161{0}", "a{0}\u0334 \u035c{0}")
    some = characters[:: 1 if plane == 0 else 7]
    texts = characters + [form.format(c) for form in around for c in some]
    got = batch(texts)
    encoded = "".join(definition(t) for t in texts).encode("utf-32-le", "surrogatepass")
    assert got.points.astype("<u4").tobytes() == encoded
    assert np.diff(got.offsets).tolist() == [len(definition(t)) for t in texts]


def test_what_the_keys_forget() -> None:
    assert fold("ＡＢ１，　甲\n\n 乙  ") == "AB1, 甲 乙"
    assert fold("①…㍿") == "1...株式会社"
    assert contamination_text("《Ｈello, 世界》_ ①\n") == "hello世界1"
    assert contamination_text("ΟΔΟΣ") == contamination_text("οδος")


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" 甲…乙 " * (i % 7) + ("e\u0301" if i % 5 == 0 else "") for i in range(60)]
    whole = fold_batch(texts)
    monkeypatch.setattr(fold_module, "_BLOCK", 16)
    cut = fold_batch(texts)
    assert np.array_equal(whole.points, cut.points)
    assert np.array_equal(whole.offsets, cut.offsets)


def test_chinese_text_never_asks_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of the table: Chinese and English prose, full-width signs and all, goes through numpy alone."""
    fold_batch([""])  # the table itself is made from the definition

    def refuse(*_: object) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr(fold_module.unicodedata, "normalize", refuse)
    text = "“春眠不觉晓，处处闻啼鸟。”——孟浩然《春晓》……café ℃ ＡＢＣ１２３（注）\u3000①￥％～ ㎡ ½\U00020000"
    batch = fold_batch([text])
    monkeypatch.undo()
    assert batch.text(0) == " ".join(unicodedata.normalize("NFKC", text).split())

"""Rolling hashes: the polynomial that the docstring names, window by window."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data import ngrams
from pandallm.data.fold import fold_batch
from pandallm.data.ngrams import ngram_hashes, text_blocks, whole_windows, window_hashes

WORD = 1 << 64


def by_hand(gram: str) -> int:
    value = 0
    for c in gram:
        value = (value * 0x9E3779B97F4A7C15 + ord(c)) % WORD
    value ^= value >> 32
    value = value * 0xD6E8FEB86659FD93 % WORD
    return value ^ (value >> 29)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("甲乙丙ab\U0001f600", max_size=30), max_size=6), st.integers(1, 17))
def test_hashes_are_the_polynomial(texts: list[str], n: int) -> None:
    hashes, offsets = ngram_hashes(fold_batch(texts), n)
    expected = [[by_hand(t[i : i + n]) for i in range(len(t) - n + 1)] for t in texts]
    assert [hashes[a:b].tolist() for a, b in pairwise(offsets)] == expected


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = fold_batch(["甲乙丙丁" * (i % 9) for i in range(40)])
    whole = ngram_hashes(batch, 5)
    monkeypatch.setattr(ngrams, "_BLOCK", 20)
    cut = ngram_hashes(batch, 5)
    assert len(list(text_blocks(batch.offsets))) > 10
    assert np.array_equal(whole[0], cut[0])
    assert np.array_equal(whole[1], cut[1])


@given(st.lists(st.integers(0, 60), max_size=20))
def test_blocks_cover_all_texts_in_order(lengths: list[int]) -> None:
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_BLOCK", 64)
        blocks = list(text_blocks(offsets))
    assert [i for start, stop in blocks for i in range(start, stop)] == list(range(len(lengths)))
    assert all(stop - start == 1 or offsets[stop] - offsets[start] <= 64 for start, stop in blocks)


def test_windows_past_their_text_are_told() -> None:
    offsets = np.array([0, 5, 5, 7, 11])
    assert whole_windows(offsets, 3).tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert window_hashes(np.array([], np.uint32), 3).tolist() == []
    assert window_hashes(np.array([7], np.uint32), 1).tolist() == [by_hand("\x07")]

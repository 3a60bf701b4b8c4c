"""Rolling hashes of character n-grams, shared by dedup and decontamination."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pandallm.data.fold import FoldedBatch

_FACTOR = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)
#: Code points worked on at a time: what a block needs fits the processor's cache.
_BLOCK = 1 << 15


def ngram_hashes(batch: FoldedBatch, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """64-bit hashes of all character n-grams: (hashes, offsets), text i holding hashes[offsets[i]:offsets[i+1]].

    Polynomial in the code points, mixed at the end. A text shorter than n has none.
    """
    offsets = np.concatenate([[0], np.cumsum(np.maximum(np.diff(batch.offsets) - n + 1, 0))]).astype(np.int64)
    hashes = np.empty(int(offsets[-1]), np.uint64)
    for start, stop in text_blocks(batch.offsets):
        begin = batch.offsets[start]
        windows = window_hashes(batch.points[begin : batch.offsets[stop]], n)
        hashes[offsets[start] : offsets[stop]] = windows[whole_windows(batch.offsets[start : stop + 1] - begin, n)]
    return hashes, offsets


def text_blocks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Spans of texts, each as many as fit a block (at least one)."""
    start, texts = 0, len(offsets) - 1
    while start < texts:
        stop = int(np.searchsorted(offsets, offsets[start] + _BLOCK, "right")) - 1
        stop = max(start + 1, stop)
        yield start, stop
        start = stop


def window_hashes(points: NDArray[np.uint32], n: int) -> NDArray[np.uint64]:
    """The hash of the n code points from each place on: (points,) uint64; those that run past the end mean nothing.

    hash = sum of points[i + k] * FACTOR^(n-1-k) modulo 2^64, then mixed. Windows are doubled, so that log2(n) products do.
    """
    hashes = np.empty(len(points), np.uint64)
    for start in range(0, len(points), _BLOCK):
        hashes[start : start + _BLOCK] = _windows(points[start : start + _BLOCK + n - 1], n)[:_BLOCK]
    return hashes


def _windows(points: NDArray[np.uint32], n: int) -> NDArray[np.uint64]:
    single = points.astype(np.uint64)
    hashes, width = single.copy(), 1
    for bit in bin(n)[3:]:
        hashes, width = _join(hashes, hashes, width, width), 2 * width
        if bit == "1":
            hashes, width = _join(hashes, single, width, 1), width + 1
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _join(left: NDArray[np.uint64], right: NDArray[np.uint64], width: int, right_width: int) -> NDArray[np.uint64]:
    """Windows of `width` followed by windows of `right_width`."""
    joined = left * np.uint64(pow(_FACTOR, right_width, 1 << 64))
    joined[: max(len(left) - width, 0)] += right[width:]
    return joined


def whole_windows(offsets: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Which windows end within their text: (points,)."""
    whole = np.ones(int(offsets[-1]), np.bool_)
    for k in range(1, n):
        whole[np.maximum(offsets[1:] - k, offsets[:-1])[np.diff(offsets) > 0]] = False
    return whole

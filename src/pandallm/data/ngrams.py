"""Rolling hashes of character n-grams, shared by dedup and decontamination."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)


def ngram_hashes(texts: Sequence[str], n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """64-bit hashes of all character n-grams: (hashes, offsets), text i holding hashes[offsets[i]:offsets[i+1]].

    Polynomial in the code points, mixed at the end. A text shorter than n has none. The texts must hold no lone
    surrogates.
    """
    lengths = np.fromiter((len(t) for t in texts), np.int64, len(texts))
    flat = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(flat), np.uint64)
    for k in range(n):  # windows that run past their text are left out below
        hashes *= _FACTOR
        hashes[: max(len(flat) - k, 0)] += flat[k:]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    counts = np.maximum(lengths - n + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + np.repeat(starts, counts)
    return hashes[index], offsets

"""Exact and near duplicates. The first of several copies, in source and file order, is kept."""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pandallm.data.ngrams import ngram_hashes
from pandallm.data.spec import MinhashDedup

MINHASH_SEED = 42
KEY_BYTES = 16


def fold(text: str) -> str:
    """The key text: NFKC (which folds full width) and every run of blanks made one. Never trained on."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def content_keys(folded: Sequence[str]) -> NDArray[np.bytes_]:
    """blake2b of each folded text, (n,) of 16 bytes."""
    keys = b"".join(hashlib.blake2b(t.encode(), digest_size=KEY_BYTES).digest() for t in folded)
    return np.frombuffer(keys, np.dtype((np.void, KEY_BYTES)))


def band_keys(folded: Sequence[str], spec: MinhashDedup) -> NDArray[np.uint64]:
    """MinHash signatures cut into bands, each band hashed: (n, bands) uint64. Texts too short for an n-gram: unique keys.

    rensa's RMinHash (algorithm version 2) over `ngram_hashes`; banding as in Leskovec, Rajaraman, Ullman, "Mining of
    Massive Datasets", 3.4.
    """
    import rensa

    if not folded:
        return np.zeros((0, spec.bands), np.uint64)
    hashes, offsets = ngram_hashes(folded, spec.ngram_chars)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.astype(np.uint64), num_perm=spec.permutations, seed=MINHASH_SEED
    )
    signatures = np.array(matrix.to_rows(), np.uint64)
    rows = spec.permutations // spec.bands
    keys = np.full((len(folded), spec.bands), 0xCBF29CE484222325, np.uint64)
    for r in range(rows):
        keys ^= signatures[:, np.arange(spec.bands) * rows + r]
        keys *= np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(29)
    keys[np.diff(offsets) == 0] = 0  # marks "no n-gram": near_duplicates leaves these out
    return keys


def exact_duplicates(keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """For each row the first row of the same key (itself where it is the first)."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def near_duplicates(
    bands: NDArray[np.uint64], first: NDArray[np.int64], folded: Callable[[int], str], spec: MinhashDedup
) -> NDArray[np.int64]:
    """For each row the kept row that it repeats (itself where it is kept), exact copies included.

    bands: (n, bands). first: from `exact_duplicates`. folded: row -> key text. Rows are taken in order; a row is a
    duplicate when some row kept before it shares a band and the exact Jaccard index of their character n-grams is at
    least `spec.threshold`: nothing is dropped for which no like text stays.
    """
    representative = first.copy()
    unique = np.flatnonzero(first == np.arange(len(first)))
    groups = np.full((len(unique), spec.bands), -1, np.int64)  # number of the bucket, -1 where no one shares it
    buckets = 0
    for band in range(spec.bands):
        keys = bands[unique, band]
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = (counts[inverse] > 1) & (keys != 0)
        groups[shared, band] = inverse[shared] + buckets
        buckets += len(counts)

    @lru_cache(maxsize=50_000)
    def shingles(row: int) -> frozenset[str]:
        text = folded(row)
        return frozenset(text[i : i + spec.ngram_chars] for i in range(len(text) - spec.ngram_chars + 1))

    kept: dict[int, list[int]] = {}
    for i in np.flatnonzero((groups >= 0).any(axis=1)).tolist():
        row, mine = int(unique[i]), [g for g in groups[i].tolist() if g >= 0]
        for other in sorted({r for g in mine for r in kept.get(g, ())}):
            a, b = shingles(row), shingles(other)
            # A set much smaller than the other cannot reach the threshold.
            if min(len(a), len(b)) < spec.threshold * max(len(a), len(b)):
                continue
            both = len(a & b)
            if both >= spec.threshold * (len(a) + len(b) - both):
                representative[row] = other
                break
        else:
            for g in mine:
                kept.setdefault(g, []).append(row)
    # Exact copies follow the row that they copy.
    return representative[first]

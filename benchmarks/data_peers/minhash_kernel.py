"""What Polars and Daft lack for this job: MinHash bands over character 5-grams, and the global step. numpy, scipy and (for Polars) rensa only."""

from collections.abc import Iterable

import numpy as np

NGRAM, BANDS, ROWS = 5, 16, 8


def shingle_hashes(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all character 5-grams, and where each text's begin."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    points = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(points), np.uint64)
    for k in range(NGRAM):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes[: len(points) - k] += points[k:]
    hashes ^= hashes >> np.uint64(32)
    counts = np.maximum(lengths - NGRAM + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = np.cumsum(lengths) - lengths
    return hashes[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)], offsets


def signatures(texts: list[str]) -> np.ndarray:
    """(texts, 128) uint32."""
    import rensa

    hashes, offsets = shingle_hashes(texts)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.astype(np.uint64), num_perm=BANDS * ROWS, seed=42
    )
    return np.array(matrix.to_rows(), np.uint32)


def band_keys(signature: np.ndarray) -> np.ndarray:
    """(texts, 16) uint64."""
    rows = signature.reshape(len(signature), BANDS, ROWS).astype(np.uint64)
    keys = np.full(rows.shape[:2], 0xCBF29CE484222325, np.uint64)
    for r in range(ROWS):
        keys ^= rows[:, :, r]
        keys *= np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(29)
    return keys


def kept(bands: np.ndarray) -> np.ndarray:
    """Mask of the first document of each connected component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for keys in bands.T:
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        left.append(order[same])
        right.append(order[same + 1])
    a, b = np.concatenate(left), np.concatenate(right)
    _, labels = connected_components(
        coo_matrix((np.ones(len(a), bool), (a, b)), shape=(len(bands), len(bands))), directed=False
    )
    mask = np.zeros(len(bands), bool)
    mask[np.unique(labels, return_index=True)[1]] = True
    return mask


def batches(texts: list[str], size: int = 4000) -> Iterable[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]

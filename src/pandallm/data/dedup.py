"""Exact and near duplicates. The first of several copies, in source and file order, is kept."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pandallm.data.fold import FoldedBatch, fold, fold_batch
from pandallm.data.ngrams import ngram_hashes, text_blocks, whole_windows, window_hashes
from pandallm.data.spec import Dedup, MinhashDedup
from pandallm.progress import SILENT, Progress

__all__ = ["TextKeys", "exact_duplicates", "fold", "near_duplicates", "text_keys"]

MINHASH_SEED = 42
KEY_BYTES = 16

#: A bucket offers its latest so many kept rows, a row is compared with so many of those that share most bands with it.
#: Texts made from one form fill a few buckets with rows that are not alike; these bounds keep the work linear in the rows.
_BUCKET_CANDIDATES = 16
_ROW_CANDIDATES = 32
#: Rows whose texts are read and cut into n-grams together.
_READ_ROWS = 256
#: Of these, so many characters at a time.
_READ_CHARACTERS = 1_000_000
#: n-grams held for comparison (8 bytes each).
_CACHED_NGRAMS = 4_000_000


@dataclass(frozen=True)
class TextKeys:
    """Keys of n texts. content: (n,) 16 bytes, for exact duplicates. bands: (n, bands) uint64 for MinHash dedup, else None."""

    content: NDArray[np.void]
    bands: NDArray[np.uint64] | None


def text_keys(texts: Sequence[str], spec: Dedup, *, ranked: bool = True) -> TextKeys:
    """The keys by which copies of these texts are found; a text's keys depend on that text and the settings alone.

    ranked: whether documents will be held out by their content keys; else a quicker hash does.
    """
    batch = fold_batch(texts)
    content = content_keys(batch) if ranked else quick_keys(batch)
    return TextKeys(content, band_keys(batch, spec) if isinstance(spec, MinhashDedup) else None)


def content_keys(batch: FoldedBatch) -> NDArray[np.void]:
    """blake2b of each key text in UTF-8, (n,) of 16 bytes."""
    flat = batch.points.astype("<u4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")
    ends, blake2b = batch.offsets.tolist(), hashlib.blake2b
    digests = [
        blake2b(flat[start:end].encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
        for start, end in pairwise(ends)
    ]
    return np.frombuffer(b"".join(digests), np.dtype((np.void, KEY_BYTES)))


def quick_keys(batch: FoldedBatch) -> NDArray[np.void]:
    """XXH3 (128 bits) of each key text's code points, (n,) of 16 bytes: an eighteenth of the time of `content_keys`."""
    from xxhash import xxh3_128_digest

    points = batch.points.astype("<u4", copy=False).data.cast("B")
    digests = [xxh3_128_digest(points[4 * start : 4 * end]) for start, end in pairwise(batch.offsets.tolist())]
    return np.frombuffer(b"".join(digests), np.dtype((np.void, KEY_BYTES)))


def band_keys(batch: FoldedBatch, spec: MinhashDedup) -> NDArray[np.uint64]:
    """MinHash signatures cut into bands, each band hashed: (n, bands) uint64; 0 for texts too short for an n-gram.

    rensa's RMinHash (algorithm version 2) over `window_hashes`; banding as in Leskovec, Rajaraman, Ullman, "Mining of
    Massive Datasets", 3.4.
    """
    import rensa

    signatures = np.zeros((len(batch), spec.permutations), np.uint64)
    for start, stop in text_blocks(batch.offsets):
        begin = batch.offsets[start]
        offsets = batch.offsets[start : stop + 1] - begin
        if not offsets[-1]:
            continue
        hashes = window_hashes(batch.points[begin : batch.offsets[stop]], spec.ngram_chars)
        # A minimum does not change by repeating: windows that run past their text become its first one.
        past = np.flatnonzero(~whole_windows(offsets, spec.ngram_chars))
        hashes[past] = hashes[offsets[np.searchsorted(offsets, past, "right") - 1]]
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets.astype(np.uint64), num_perm=spec.permutations, seed=MINHASH_SEED
        )
        signatures[start:stop] = matrix.to_rows()
    by_band = signatures.reshape(len(batch), spec.bands, spec.permutations // spec.bands)
    keys = np.full((len(batch), spec.bands), 0xCBF29CE484222325, np.uint64)
    for r in range(by_band.shape[2]):
        keys ^= by_band[:, :, r]
        keys *= np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(29)
    keys[np.diff(batch.offsets) < spec.ngram_chars] = 0
    return keys


def exact_duplicates(keys: NDArray[np.void]) -> NDArray[np.int64]:
    """For each row the first row of the same key (itself where it is the first): (n,)."""
    first = np.arange(len(keys))
    low, high = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2).T
    rows = _sharing(low)
    rows = rows[np.lexsort((rows, high[rows], low[rows]))]
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (low[rows[1:]] != low[rows[:-1]]) | (high[rows[1:]] != high[rows[:-1]])
    first[rows] = rows[begins][np.cumsum(begins) - 1]
    return first


def _sharing(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows whose key stands more than once."""
    order = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(keys), np.bool_)
    shared[1:] |= same
    shared[:-1] |= same
    return order[shared]


def near_duplicates(
    band: Callable[[int], NDArray[np.uint64]],
    first: NDArray[np.int64],
    text: Callable[[int], str],
    spec: MinhashDedup,
    progress: Progress = SILENT,
) -> NDArray[np.int64]:
    """For each row the kept row that it repeats (itself where it is kept), exact copies included: (n,).

    band: number -> that band's keys of all rows, (n,); one band is held at a time. first: from `exact_duplicates`.
    text: row -> its text, folded or not. Rows are taken in order; a row is a duplicate when some row kept before it
    shares a band and the Jaccard index of their sets of character n-grams is at least `spec.threshold`: nothing is
    dropped for which no like text stays. n-grams are told apart by 64-bit hashes. Rows that share no bucket cost
    nothing, and no row is compared with more than a fixed number of others.
    """
    representative = first.copy()
    buckets = _Buckets.of(band, first, spec.bands)
    if not len(buckets.rows):
        return representative
    ngrams = _NgramSets(text, spec.ngram_chars)
    with progress.task("near duplicates", len(buckets.rows), "rows") as task:
        for begin in range(0, len(buckets.rows), _READ_ROWS):
            span = range(begin, min(begin + _READ_ROWS, len(buckets.rows)))
            rows = buckets.rows[span.start : span.stop].tolist()
            ngrams.read({*rows, *buckets.latest(span).tolist()})
            for i, row in zip(span, rows, strict=True):
                for other in buckets.candidates(i).tolist():
                    if ngrams.alike(row, other, spec.threshold):
                        representative[row] = other
                        break
                else:
                    buckets.keep(i)
            task.advance(len(rows))
    # Exact copies follow the row that they copy.
    return representative[first]


class _Buckets:
    """Rows that share a band's key with another, and those of them that are kept so far.

    rows: (m,) in order. Entry e says that a row lies in bucket bucket[e]; row i has the entries ends[i] to ends[i+1].
    Kept entries of a bucket form a chain from `last` through `before`; -1 ends it.
    """

    def __init__(self, rows: NDArray[np.int64], ends: NDArray[np.int64], bucket: NDArray[np.int32], count: int) -> None:
        self.rows, self._ends, self._bucket = rows, ends, bucket
        self._owner = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(ends))
        self._before = np.full(len(bucket), -1, np.int32)
        self._last = np.full(count, -1, np.int32)

    @classmethod
    def of(cls, band: Callable[[int], NDArray[np.uint64]], first: NDArray[np.int64], bands: int) -> "_Buckets":
        unique = np.flatnonzero(first == np.arange(len(first)))
        counts = np.zeros(len(unique), np.int32)
        found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []  # of each band: places in `unique`, buckets
        total = 0
        for number in range(bands):
            keys = band(number)[unique]
            places = _sharing(keys)
            places = places[keys[places] != 0]
            inverse = np.unique(keys[places], return_inverse=True)[1]
            order = np.argsort(places)
            found.append((places[order].astype(np.int32), (inverse[order] + total).astype(np.int32)))
            counts[places] += 1
            total += int(inverse.max()) + 1 if len(inverse) else 0
        used = np.flatnonzero(counts)
        number_of = np.zeros(len(unique), np.int32)
        number_of[used] = np.arange(len(used))
        ends = np.concatenate([[0], np.cumsum(counts[used], dtype=np.int64)])
        bucket: NDArray[np.int32] = np.empty(int(ends[-1]), np.int32)
        filled = ends[:-1].copy()
        for members, numbers in found:
            mine = number_of[members]
            bucket[filled[mine]] = numbers
            filled[mine] += 1
        return cls(unique[used], ends, bucket, total)

    def latest(self, span: range) -> NDArray[np.int64]:
        """The rows kept last in the buckets of these rows."""
        entries = self._last[self._bucket[self._ends[span.start] : self._ends[span.stop]]]
        return self.rows[np.unique(self._owner[entries[entries >= 0]])]

    def candidates(self, i: int) -> NDArray[np.int64]:
        """Rows kept before row i that share a bucket with it: those that share most first, then in order."""
        entries = self._last[self._bucket[self._ends[i] : self._ends[i + 1]]]
        entries = entries[entries >= 0]
        if not len(entries):
            return self.rows[:0]
        owners = []
        for _ in range(_BUCKET_CANDIDATES):
            owners.append(self._owner[entries])
            entries = self._before[entries]
            entries = entries[entries >= 0]
            if not len(entries):
                break
        found, shared = np.unique(np.concatenate(owners), return_counts=True)
        return self.rows[found[np.argsort(-shared, kind="stable")[:_ROW_CANDIDATES]]]

    def keep(self, i: int) -> None:
        """Row i is kept: later ones are compared with it."""
        entries = np.arange(self._ends[i], self._ends[i + 1])
        mine = self._bucket[entries]
        self._before[entries] = self._last[mine]
        self._last[mine] = entries


class _NgramSets:
    """Sets of n-grams of rows, as sorted hashes; the least recently used go first."""

    def __init__(self, text: Callable[[int], str], n: int) -> None:
        self._text, self._n = text, n
        self._sets: OrderedDict[int, NDArray[np.uint64]] = OrderedDict()
        self._held = self._added = 0  # n-grams

    def read(self, rows: Iterable[int]) -> None:
        """Read the rows that are not held, as far as they leave room for others."""
        before, waiting, texts, characters = self._added, list[int](), list[str](), 0
        for row in sorted(r for r in rows if r not in self._sets):
            waiting.append(row)
            texts.append(self._text(row))
            characters += len(texts[-1])
            if characters >= _READ_CHARACTERS:
                self._add(waiting, texts)
                waiting, texts, characters = [], [], 0
                if self._added - before > _CACHED_NGRAMS // 2:
                    break
        self._add(waiting, texts)

    def _add(self, rows: Sequence[int], texts: Sequence[str]) -> None:
        hashes, offsets = ngram_hashes(fold_batch(texts), self._n)
        for row, start, end in zip(rows, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            ordered = np.sort(hashes[start:end])
            keep = np.ones(len(ordered), np.bool_)
            keep[1:] = ordered[1:] != ordered[:-1]
            self._sets[row] = ordered[keep]
            self._added += len(self._sets[row])
            self._held += len(self._sets[row])
        while self._held > _CACHED_NGRAMS and len(self._sets) > 1:
            self._held -= len(self._sets.popitem(last=False)[1])

    def _get(self, row: int) -> NDArray[np.uint64]:
        if row not in self._sets:
            self.read([row])
        self._sets.move_to_end(row)
        return self._sets[row]

    def alike(self, one: int, other: int, threshold: float) -> bool:
        """Whether the Jaccard index of the two sets is at least the threshold."""
        a, b = self._get(one), self._get(other)
        # A set much smaller than the other cannot reach it.
        if min(len(a), len(b)) < threshold * max(len(a), len(b)):
            return False
        ordered = np.concatenate([a, b])
        ordered.sort()
        both = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        return both >= threshold * (len(a) + len(b) - both)

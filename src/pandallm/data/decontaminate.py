"""Which texts repeat a benchmark's questions, by shared runs of characters."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pandallm.data.fold import contamination_batch, contamination_text
from pandallm.data.ngrams import ngram_hashes, text_blocks, whole_windows, window_hashes

__all__ = ["Contamination", "ContaminationIndex", "Overlap", "contamination_text"]

#: task -> [(question id, text)]
Contamination: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]

#: A text is listed with at most so many questions, the strongest first.
MAX_OVERLAPS = 1_000
#: The filter has at least so many bits for each n-gram: 3 % of the n-grams that are in no question pass it.
_BITS_PER_NGRAM = 32
_MAX_FILTER_BITS = 27
_BUILD_BLOCK = 1 << 18


class Overlap(NamedTuple):
    """What a text shares with a question: `grams` distinct n-grams, `share` of the question's own."""

    task: str
    question: str
    grams: int
    share: float


class ContaminationIndex:
    """n-grams of benchmark texts, sorted by hash; every hit is checked character by character.

    texts: task -> [(question id, text)]; several texts of one id count as one question. Texts are compared by
    `contamination_text`; one shorter than `ngram_chars` characters has no n-gram and is never found. Memory: about 30
    bytes an n-gram, three times that while it is built.
    """

    def __init__(self, texts: Contamination, ngram_chars: int = 13) -> None:
        self.ngram_chars = ngram_chars
        rows = [(task, question, text) for task, questions in texts.items() for question, text in questions]
        numbers: dict[tuple[str, str], int] = {}
        owners = np.array([numbers.setdefault((task, q), len(numbers)) for task, q, _ in rows], np.int32)
        self._names = list(numbers)
        by_owner = np.argsort(owners, kind="stable")
        batch = contamination_batch([rows[i][2] for i in by_owner.tolist()])
        hashes, offsets = ngram_hashes(batch, ngram_chars)
        order = np.argsort(hashes, kind="stable")  # equal ones stay in the order of their questions
        hashes = hashes[order]
        texts_of = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(offsets))[order]
        entry_owners = owners[by_owner][texts_of]
        places = order.astype(np.int32)
        del order
        places += (batch.offsets[:-1] - offsets[:-1]).astype(np.int32)[texts_of]
        del texts_of
        new_hash = np.ones(len(hashes), np.bool_)
        new_hash[1:] = hashes[1:] != hashes[:-1]
        own = new_hash.copy()  # the first of a question's copies of an n-gram
        own[1:] |= entry_owners[1:] != entry_owners[:-1]
        self._points, self._owners, self._places = batch.points, entry_owners[own], places[own]
        self._sizes = np.bincount(self._owners, minlength=len(self._names))  # distinct n-grams of each question
        self._hashes = hashes[new_hash]
        self._ends = np.append(np.flatnonzero(new_hash[own]).astype(np.int32), np.int32(len(self._owners)))
        bits = min(_MAX_FILTER_BITS, max(3, (_BITS_PER_NGRAM * len(self._hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filter = _bit_table(self._hashes, bits)

    def overlaps(self, texts: Sequence[str]) -> list[list[Overlap]]:
        """For each text the questions that it shares an n-gram with: the most n-grams first, then in the index's order.

        At most MAX_OVERLAPS a text.
        """
        found: list[list[Overlap]] = [[] for _ in texts]
        if not len(self._hashes):
            return found
        batch = contamination_batch(texts)
        for start, stop in text_blocks(batch.offsets):
            begin, end = batch.offsets[start], batch.offsets[stop]
            points, offsets = batch.points[begin:end], batch.offsets[start : stop + 1] - begin
            places, grams = self._probe(points, offsets)
            owners = np.searchsorted(offsets, places, "right") - 1
            for text in np.unique(owners).tolist():
                mine = owners == text
                found[start + text] = self._strongest(points, places[mine], grams[mine])
        return found

    def _probe(
        self, points: NDArray[np.uint32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where n-grams begin whose hash is in the index, and the numbers of these hashes."""
        hashes = window_hashes(points, self.ngram_chars)
        slots = hashes >> self._shift
        set_bits = self._filter[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8)
        places = np.flatnonzero((set_bits & np.uint8(1)).view(np.bool_) & whole_windows(offsets, self.ngram_chars))
        sought = hashes[places]
        grams = np.minimum(np.searchsorted(self._hashes, sought), len(self._hashes) - 1)
        there = self._hashes[grams] == sought
        return places[there], grams[there]

    def _strongest(
        self, points: NDArray[np.uint32], places: NDArray[np.int64], grams: NDArray[np.int64]
    ) -> list[Overlap]:
        """Overlaps of one text, whose n-grams at `places` have the hashes of these numbers."""
        grams, first = np.unique(grams, return_index=True)
        counts = self._ends[grams + 1] - self._ends[grams]
        entries = np.arange(int(counts.sum())) + np.repeat(self._ends[grams] - (np.cumsum(counts) - counts), counts)
        here, there = np.repeat(places[first], counts), self._places[entries]
        same = np.ones(len(entries), np.bool_)
        for k in range(self.ngram_chars):
            same &= points[here + k] == self._points[there + k]
        questions, shared = np.unique(self._owners[entries[same]], return_counts=True)
        order = np.argsort(-shared, kind="stable")[:MAX_OVERLAPS]
        return [
            Overlap(self._names[q][0], self._names[q][1], n, n / int(self._sizes[q]))
            for q, n in zip(questions[order].tolist(), shared[order].tolist(), strict=True)
        ]


def _bit_table(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """One bit for each value of a hash's first `bits` bits, set where a hash begins so: (2**bits / 8,)."""
    table = np.zeros(1 << (bits - 3), np.uint8)
    for start in range(0, len(hashes), _BUILD_BLOCK):
        slots = hashes[start : start + _BUILD_BLOCK] >> np.uint64(64 - bits)
        masks = np.left_shift(1, (slots & np.uint64(7)).astype(np.uint8), dtype=np.uint8)
        np.bitwise_or.at(table, slots >> np.uint64(3), masks)
    return table

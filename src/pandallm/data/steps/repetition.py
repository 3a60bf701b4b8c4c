"""Text that repeats itself: the rules of Gopher (arXiv 2112.11446, table A1) on words, lines and paragraphs.

In Chinese text n words are round(1.8 n) characters, see `words`. A punctuation mark is a word of its own, as it is to
the tokenizers that others count with.
"""

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pandallm.data.clean_spec import RepetitionStep
from pandallm.data.steps.document import Document, Step
from pandallm.data.steps.words import CHARACTERS_PER_WORD, HAN, KANA, OTHER, Shape, lines_of, repeated

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)
_PARAGRAPHS = re.compile(r"\n\s*\n")

#: What stands there twice is no repetition yet, however short the text.
LEAST_REPEATS = 3


class _Units:
    """The words of a text in order: hashes (units,) and their lengths in characters (units,)."""

    def __init__(self, shape: Shape) -> None:
        classes = shape.classes
        run_starts, run_stops = shape.runs
        begins = (classes == HAN) | (classes == KANA) | (classes == OTHER)
        begins[run_starts] = True
        starts = np.flatnonzero(begins)
        mixed = shape.points.astype(np.uint64) * _MIX
        mixed ^= mixed >> _SHIFT
        self.hashes = mixed[starts]
        self.lengths = np.ones(len(starts), np.intp)
        if len(run_starts):
            places = np.searchsorted(starts, run_starts)
            self.hashes[places] = _run_hashes(mixed, run_starts, run_stops)
            self.lengths[places] = run_stops - run_starts
        self.characters = int(self.lengths.sum())
        self._ends = np.concatenate([[0], np.cumsum(self.lengths)])
        self._grams = {1: self.hashes}

    def grams(self, n: int) -> NDArray[np.uint64]:
        """(units - n + 1,) hashes of n units in a row."""
        if n not in self._grams:
            known = max(k for k in self._grams if k < n)
            hashes = self._grams[known]
            for k in range(known, n):
                hashes = hashes[:-1] * _FACTOR + self.hashes[k:]
            self._grams[n] = hashes
        return self._grams[n]

    def gram_lengths(self, n: int) -> NDArray[np.intp]:
        """(units - n + 1,) characters of n units in a row."""
        return self._ends[n:] - self._ends[:-n]


def _run_hashes(mixed: NDArray[np.uint64], starts: NDArray[np.intp], stops: NDArray[np.intp]) -> NDArray[np.uint64]:
    """(runs,): a hash of each run's characters in order."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    values = mixed[np.repeat(starts, lengths) + within] + within.astype(np.uint64) * _FACTOR
    values = (values ^ (values >> _SHIFT)) * _MIX
    return np.add.reduceat(values, ends - lengths)


def _has_frequent(units: _Units, ngrams: list[tuple[int, float]]) -> bool:
    """Whether for some (n, share) the most frequent n units, not counted where they overlap, are more than that share."""
    most = len(units.hashes)
    for n, share in ngrams:
        limit = share * units.characters
        # Longer runs are no more frequent than their shorter parts: most texts need one sort.
        if LEAST_REPEATS * n > len(units.hashes) or most < LEAST_REPEATS:
            return False
        lengths = units.gram_lengths(n)
        longest = int(lengths.max())
        if most * longest <= limit:
            continue
        hashes = units.grams(n)
        ordered = np.sort(hashes)  # a third of the time of argsort, and mostly enough
        edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
        starts, counts = edges[:-1], edges[1:] - edges[:-1]
        most = int(counts.max())
        if most < LEAST_REPEATS or most * longest <= limit:
            continue
        order = np.argsort(hashes, kind="stable")
        frequent = np.flatnonzero((counts >= LEAST_REPEATS) & (counts * lengths[order[starts]] > limit))
        for start, count in zip(starts[frequent].tolist(), counts[frequent].tolist(), strict=True):
            places = order[start : start + count].tolist()
            apart = _apart(places, n)
            if apart >= LEAST_REPEATS and apart * int(lengths[places[0]]) > limit:
                return True
    return False


def _apart(places: list[int], n: int) -> int:
    """How many of the places (ascending) can be taken so that none is less than n after the one before."""
    count = free = 0
    for place in places:
        if place >= free:
            count, free = count + 1, place + n
    return count


def _repeated_characters(units: _Units, n: int) -> int:
    """Characters inside n units in a row that stood there before, each counted once."""
    hashes = units.grams(n)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    later = order[1:][ordered[1:] == ordered[:-1]]
    if not len(later):
        return 0
    covered = np.zeros(len(units.hashes) + 1, np.intp)
    np.add.at(covered, later, 1)
    np.add.at(covered, later + n, -1)
    return int(units.lengths[np.cumsum(covered)[:-1] > 0].sum())


def _repeats_words(shape: Shape, step: RepetitionStep) -> bool:
    units = _Units(shape)
    total = len(units.hashes)
    per_word = CHARACTERS_PER_WORD if 2 * shape.ideographs >= CHARACTERS_PER_WORD * shape.words else 1.0
    if _has_frequent(units, [(round(words * per_word), share) for words, share in sorted(step.ngrams.items())]):
        return True
    shares = sorted(step.duplicate_ngrams.items())
    for i, (words, share) in enumerate(shares):
        n = round(words * per_word)
        if 2 * n > total:
            return False
        characters = _repeated_characters(units, n)
        if characters > share * units.characters:
            return True
        # A longer run that comes again brings its shorter parts with it, so longer ones cover no more.
        if characters <= min((s for _, s in shares[i + 1 :]), default=0) * units.characters:
            return False
    return False


def _five_characters(text: str, share: float) -> bool:
    """Whether one run of five characters is more than `share` of the text."""
    if len(text) < 5:
        return False
    most, _ = Counter(text[i : i + 5] for i in range(len(text) - 4)).most_common(1)[0]
    count = text.count(most)
    return count >= LEAST_REPEATS and 5 * count > share * len(text)


def make_repetition(step: RepetitionStep, where: str) -> Step:
    """Drops as `repetition` (runs of words), `repetition_lines` or `repetition_paragraphs`.

    Only trained turns count: an answer that takes up the words of its question repeats nothing.
    """

    def run(document: Document) -> str | None:
        text = document.trained_text
        if "\n" in text and (reason := _repeats_lines(text, step)) is not None:
            return reason
        if step.max_share is not None and _five_characters(text, step.max_share):
            return "repetition"
        if (step.ngrams or step.duplicate_ngrams) and _repeats_words(document.trained_shape, step):
            return "repetition"
        return None

    return run


def _repeats_lines(text: str, step: RepetitionStep) -> str | None:
    for name, parts, share, characters_share in (
        (
            "repetition_paragraphs",
            [p for p in _PARAGRAPHS.split(text) if p],
            step.paragraphs,
            step.paragraph_characters,
        ),
        ("repetition_lines", lines_of(text), step.lines, step.line_characters),
    ):
        number, characters = repeated(parts)
        if number and share is not None and number > share * len(parts):
            return name
        if number and characters_share is not None and characters > characters_share * sum(map(len, parts)):
            return name
    return None

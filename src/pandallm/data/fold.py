"""Key texts: what dedup and decontamination compare. Never trained on.

`fold` and `contamination_text` are the definitions; `fold_batch` and `contamination_batch` give the same code points for many texts at a time, in numpy.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Code points worked on at a time: what a block needs fits the processor's cache.
_BLOCK = 1 << 16
#: Entries of a table from here on stand for several code points, or for none; the first of them for "ask the definition".
_ASK = 0x110000
_BLANK = 0x20
#: Planes that hold characters; what lies between is asked for (none of it is assigned).
_CHARTED = ((0, 0x33480), (0xE0000, 0xE1000))


@dataclass(frozen=True)
class FoldedBatch:
    """Key texts of a batch. points: code points, uint32, one text after the other. offsets: (texts + 1,) int64."""

    points: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, i: int) -> str:
        """Key text i as a string."""
        points = self.points[self.offsets[i] : self.offsets[i + 1]]
        return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def fold(text: str) -> str:
    """The key text: NFKC (which folds full width) and every run of blanks made one, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def contamination_text(text: str) -> str:
    """NFKC, lower case (one small sigma), letters and digits only: what two printings of one text share."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).lower().replace("ς", "σ")))


def fold_batch(texts: Sequence[str]) -> FoldedBatch:
    """`fold` of each text: the same code points."""
    return _batch(texts, _fold_table(), fold, _collapse)


def contamination_batch(texts: Sequence[str]) -> FoldedBatch:
    """`contamination_text` of each text: the same code points."""
    return _batch(texts, _contamination_table(), contamination_text, None)


@dataclass(frozen=True)
class _Table:
    """What each code point becomes. single: (0x110000,) uint32, itself a code point, or _ASK + number of an expansion.

    The expansions stand one after the other in `points`; expansion k is points[starts[k] : starts[k] + lengths[k]].
    """

    single: NDArray[np.uint32]
    points: NDArray[np.uint32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


_Finish = Callable[[NDArray[np.uint32], NDArray[np.int64]], tuple[NDArray[np.uint32], NDArray[np.int64]]]


def _batch(
    texts: Sequence[str], table: _Table, definition: Callable[[str], str], finish: _Finish | None
) -> FoldedBatch:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    parts, sizes = [], []
    for start, stop in _blocks(lengths):
        points, offsets, asked = _translate(texts[start:stop], lengths[start:stop], table)
        if finish is not None:
            points, offsets = finish(points, offsets)
        if len(asked):
            points, offsets = _replace(points, offsets, {i: definition(texts[start + i]) for i in asked.tolist()})
        parts.append(points)
        sizes.append(np.diff(offsets))
    if not parts:
        return FoldedBatch(np.zeros(0, np.uint32), np.zeros(1, np.int64))
    return FoldedBatch(np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]))


def _blocks(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Spans of texts that hold about _BLOCK code points."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
        yield start, stop
        start = stop


def _translate(
    texts: Sequence[str], lengths: NDArray[np.int64], table: _Table
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Code points by the table, offsets, and the texts that hold a code point which the table does not know."""
    flat = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    points = table.single[flat]
    places = np.flatnonzero(points >= _ASK)
    if not len(places):
        return points, offsets, places
    numbers = (points[places] - _ASK).astype(np.int64)
    sizes, starts = table.lengths[numbers], table.starts[numbers]
    # Slices between the places: they are few, and cost less than numpy's insert.
    pieces: list[NDArray[np.uint32]] = []
    done = 0
    for place, start, size in zip(places.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        pieces += (points[done:place], table.points[start : start + size])
        done = place + 1
    pieces.append(points[done:])
    grown = np.concatenate(pieces)
    owners = np.searchsorted(offsets, places[numbers == 0], "right") - 1
    changes = np.concatenate([[0], np.cumsum(sizes - 1)])
    return grown, offsets + changes[np.searchsorted(places, offsets, "left")], np.unique(owners)


def _collapse(points: NDArray[np.uint32], offsets: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Every run of blanks made one, none at either end of a text."""
    blanks = np.flatnonzero(points == _BLANK)
    if not len(blanks):
        return points, offsets
    edge = np.zeros(len(points) + 1, np.bool_)
    edge[offsets] = True
    begins = np.ones(len(blanks), np.bool_)  # is the blank the first of its run?
    begins[1:] = np.diff(blanks) > 1
    runs = np.cumsum(begins) - 1  # one that reaches over from text to text goes as a whole
    at_end = np.zeros(int(runs[-1]) + 1, np.bool_)
    at_end[runs[edge[blanks + 1]]] = True
    gone = blanks[~begins | edge[blanks] | at_end[runs]]
    if not len(gone):
        return points, offsets
    keep = np.ones(len(points), np.bool_)
    keep[gone] = False
    return points[keep], offsets - np.searchsorted(gone, offsets, "left")


def _replace(
    points: NDArray[np.uint32], offsets: NDArray[np.int64], texts: dict[int, str]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The texts of these numbers (in order) put in the place of what stands there."""
    lengths = np.diff(offsets)
    pieces, done = [], 0
    for i, text in texts.items():
        pieces.append(points[offsets[done] : offsets[i]])
        pieces.append(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
        lengths[i] = len(text)
        done = i + 1
    pieces.append(points[offsets[done] :])
    return np.concatenate(pieces), np.concatenate([[0], np.cumsum(lengths)])


def _charted() -> Iterator[tuple[int, str]]:
    """All characters that may be assigned, 256 at a time: the first one's code point, and the characters."""
    for start, stop in _CHARTED:
        for first in range(start, stop, 256):
            yield first, "".join(map(chr, range(first, min(first + 256, stop))))


@lru_cache(1)
def _composing() -> frozenset[str]:
    """Characters that may join with one before them: second halves of canonical decompositions, Hangul vowels and finals."""
    found = {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for _, characters in _charted():
        if unicodedata.normalize("NFD", characters) == characters:
            continue  # none of them decomposes
        for parts in map(str.split, map(unicodedata.decomposition, characters)):
            if len(parts) == 2 and not parts[0].startswith("<"):
                found.add(chr(int(parts[1], 16)))
    return frozenset(found)


def _alone(character: str, composing: frozenset[str]) -> bool:
    """Whether NFKC treats it by itself, whatever stands beside it.

    Normal forms (Unicode Standard Annex 15) move and join only characters of a combining class, and second halves of
    compositions, to what stands before. A character whose decomposition begins with neither stops both, and one whose
    neighbours all begin so ends as it ends alone.
    """
    begin = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.combining(begin) == 0 and begin not in composing


def _all_plain(characters: str, composing: frozenset[str]) -> bool:
    """Whether each is `_alone` and NFKC leaves it as it is; may say no where it is so."""
    # U+0345 has the highest combining class: it would change places with any combining character behind it.
    marked = "\u0345".join(["", *characters])
    return unicodedata.normalize("NFKD", marked) == marked and composing.isdisjoint(characters)


def _make_table(definition: Callable[[str], str], change: Callable[[str], str]) -> _Table:
    """change: what the definition makes of a character, wherever it stands."""
    composing = _composing()
    single = np.full(0x110000, _ASK, np.uint32)
    expansions = ["?"]  # number 0: "ask"; takes one place
    for first, characters in _charted():
        if definition(characters) == characters and _all_plain(characters, composing):
            single[first : first + len(characters)] = np.arange(first, first + len(characters))
            continue
        for c, character in enumerate(characters, first):
            if not _alone(character, composing):
                continue
            becomes = change(character)
            if len(becomes) == 1:
                single[c] = ord(becomes)
            else:
                single[c] = _ASK + len(expansions)
                expansions.append(becomes)
    lengths = np.array([len(e) for e in expansions], np.int64)
    points = np.array([ord(c) for e in expansions for c in e], np.uint32)
    return _Table(single, points, np.cumsum(lengths) - lengths, lengths)


@lru_cache(1)
def _fold_table() -> _Table:
    def change(character: str) -> str:
        return "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFKC", character))

    return _make_table(fold, change)


@lru_cache(1)
def _contamination_table() -> _Table:
    return _make_table(contamination_text, contamination_text)

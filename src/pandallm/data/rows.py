"""Packing: examples -> segments -> rows."""

from array import array
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Packing = Literal["best_fit", "one_per_sequence", "concatenate"]

#: Best fit decreasing works in windows of so many segments: memory stays flat, and short and long ones stay mixed.
WINDOW = 8_192


@dataclass(frozen=True)
class Segments:
    """Stretches of entries, in row order: (segments,) each. `begin` counts from the entry's first token."""

    entry: NDArray[np.int32]
    begin: NDArray[np.int32]
    length: NDArray[np.int32]
    row: NDArray[np.int32]

    @property
    def rows(self) -> int:
        return int(self.row[-1]) + 1 if len(self.row) else 0


def best_fit_decreasing(lengths: NDArray[np.integer], room: int) -> NDArray[np.int32]:
    """Row of each item: longest first, into the fullest row that still holds it (Johnson 1974). lengths <= room."""
    sizes = lengths.tolist()
    rows = [0] * len(sizes)
    free: list[int] = []  # distinct room left in open rows, sorted
    open_rows: dict[int, list[int]] = {}
    count = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = sizes[i]
        at = bisect_left(free, length)
        if at == len(free):
            row, left = count, room - length
            count += 1
        else:
            space = free[at]
            row, left = open_rows[space].pop(), space - length
            if not open_rows[space]:
                del open_rows[space], free[at]
        rows[i] = row
        if left:
            if left not in open_rows:
                open_rows[left] = []
                insort(free, left)
            open_rows[left].append(row)
    return np.array(rows, np.int32)


def _pieces(lengths: NDArray[np.integer], order: NDArray[np.int32], room: int) -> Segments:
    """Entries in order, those longer than a row cut into consecutive pieces; every piece its own row."""
    counts = -(-lengths[order] // room)
    entry = np.repeat(order, counts)
    number = np.arange(len(entry), dtype=np.int32)
    begin = (number - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32) * np.int32(room)
    return Segments(entry, begin, np.minimum(lengths[entry] - begin, room).astype(np.int32), number)


def _concatenate(
    lengths: NDArray[np.integer], may_cut: NDArray[np.bool_], order: NDArray[np.int32], room: int
) -> Segments:
    entries, begins, sizes, rows = array("i"), array("i"), array("i"), array("i")
    row, used = 0, 0
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        for entry, length, cut in zip(window.tolist(), lengths[window].tolist(), may_cut[window].tolist(), strict=True):
            begin = 0
            if used == room or (used and not cut and length > room - used):
                row, used = row + 1, 0
            while begin < length:
                if used == room:
                    row, used = row + 1, 0
                size = min(length - begin, room - used)
                entries.append(entry)
                begins.append(begin)
                sizes.append(size)
                rows.append(row)
                begin, used = begin + size, used + size
    return Segments(*(np.frombuffer(values, np.int32) for values in (entries, begins, sizes, rows)))


def pack_rows(
    lengths: NDArray[np.integer], may_cut: NDArray[np.bool_], sequence_length: int, packing: Packing, seed: int
) -> Segments:
    """Put entries of these lengths into rows of at most `sequence_length` tokens.

    lengths, may_cut: (entries,); an entry that may not be cut is no longer than a row. Entries are shuffled by seed
    first. best_fit and one_per_sequence cut only what is longer than a row; concatenate cuts at every row end, but an
    entry that may not be cut starts a new row instead. Memory: about 50 bytes an entry.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(lengths)).astype(np.int32)
    if packing == "concatenate":
        return _concatenate(lengths, may_cut, order, sequence_length)
    pieces = _pieces(lengths, order, sequence_length)
    if packing == "one_per_sequence":
        return pieces
    count = 0
    for start in range(0, len(pieces.row), WINDOW):  # the rows of a window follow those of the one before it
        window = slice(start, start + WINDOW)
        rows = best_fit_decreasing(pieces.length[window], sequence_length)
        by_row = np.argsort(rows, kind="stable")
        for values in (pieces.entry, pieces.begin, pieces.length):
            values[window] = values[window][by_row]
        pieces.row[window] = rows[by_row] + count
        count += int(rows.max()) + 1
    return pieces


def row_order(
    row_tokens: NDArray[np.int64],
    batch_sequences: int,
    seed: int,
    *,
    epochs: float | None = None,
    documents: int | None = None,
    tokens: int | None = None,
    steps: int | None = None,
    row_examples: NDArray[np.int64] | None = None,
) -> NDArray[np.int32]:
    """The rows in reading order, each pass over them its own seeded permutation.

    row_tokens: (rows,). Exactly one budget. epochs: so many passes (the last step may be short). tokens: up to the
    first whole step that reaches them. documents: the same, counted by `row_examples`, how many examples begin in each
    row. steps: exactly so many steps of `batch_sequences` rows.
    """
    rows = len(row_tokens)
    amounts, budget = row_tokens, tokens
    if documents is not None:
        assert row_examples is not None
        amounts, budget = row_examples, documents
    if epochs is not None:
        wanted = max(1, round(epochs * rows))
    elif steps is not None:
        wanted = steps * batch_sequences
    else:
        assert budget is not None
        wanted = (budget // max(1, int(amounts.sum())) + 1) * rows + batch_sequences
    order = np.concatenate(
        [np.random.default_rng([seed, 3, e]).permutation(rows).astype(np.int32) for e in range(-(-wanted // rows))]
    )
    if budget is not None:
        reached = int(np.searchsorted(np.cumsum(amounts[order]), budget)) + 1
        wanted = -(-reached // batch_sequences) * batch_sequences
    return order[:wanted]

"""Packing: examples -> segments -> rows."""

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

    entry: NDArray[np.int64]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    row: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return int(self.row[-1]) + 1 if len(self.row) else 0


def best_fit_decreasing(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Row of each item: longest first, into the fullest row that still holds it (Johnson 1974). lengths <= room."""
    rows = np.empty(len(lengths), np.int64)
    free: list[int] = []  # distinct room left in open rows, sorted
    open_rows: dict[int, list[int]] = {}
    count = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
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
    return rows


def _pieces(lengths: NDArray[np.int64], order: NDArray[np.int64], room: int) -> Segments:
    """Entries in order, those longer than a row cut into consecutive pieces; every piece its own row."""
    counts = -(-lengths[order] // room)
    entry = np.repeat(order, counts)
    number = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = number * room
    return Segments(entry, begin, np.minimum(lengths[entry] - begin, room), np.arange(len(entry)))


def _concatenate(
    lengths: NDArray[np.int64], may_cut: NDArray[np.bool_], order: NDArray[np.int64], room: int
) -> Segments:
    entries, begins, sizes, rows = [], [], [], []
    row, used = 0, 0
    for entry in order.tolist():
        length, begin = int(lengths[entry]), 0
        if used == room or (used and not may_cut[entry] and length > room - used):
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
    return Segments(np.array(entries), np.array(begins), np.array(sizes), np.array(rows))


def pack_rows(
    lengths: NDArray[np.int64], may_cut: NDArray[np.bool_], sequence_length: int, packing: Packing, seed: int
) -> Segments:
    """Put entries of these lengths into rows of at most `sequence_length` tokens.

    lengths, may_cut: (entries,); an entry that may not be cut is no longer than a row. Entries are shuffled by seed
    first. best_fit and one_per_sequence cut only what is longer than a row; concatenate cuts at every row end, but an
    entry that may not be cut starts a new row instead.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(lengths))
    if packing == "concatenate":
        return _concatenate(lengths, may_cut, order, sequence_length)
    pieces = _pieces(lengths, order, sequence_length)
    if packing == "one_per_sequence":
        return pieces
    rows, count = np.empty(len(pieces.row), np.int64), 0
    for start in range(0, len(rows), WINDOW):
        window = slice(start, start + WINDOW)
        rows[window] = best_fit_decreasing(pieces.length[window], sequence_length) + count
        count = int(rows[window].max()) + 1
    by_row = np.argsort(rows, kind="stable")
    return Segments(pieces.entry[by_row], pieces.begin[by_row], pieces.length[by_row], rows[by_row])


def row_order(
    row_tokens: NDArray[np.int64],
    batch_sequences: int,
    seed: int,
    *,
    epochs: float | None = None,
    tokens: int | None = None,
    steps: int | None = None,
) -> NDArray[np.int32]:
    """The rows in reading order, each pass over them its own seeded permutation.

    row_tokens: (rows,). Exactly one budget. epochs: so many passes (the last step may be short). tokens: up to the
    first whole step that reaches them. steps: exactly so many steps of `batch_sequences` rows.
    """
    rows = len(row_tokens)
    if epochs is not None:
        wanted = max(1, round(epochs * rows))
    elif steps is not None:
        wanted = steps * batch_sequences
    else:
        assert tokens is not None
        passes = tokens // max(1, int(row_tokens.sum()))
        wanted = (passes + 1) * rows + batch_sequences
    count = -(-wanted // rows)
    order = np.concatenate([np.random.default_rng([seed, 3, e]).permutation(rows) for e in range(count)])
    if tokens is not None:
        reached = int(np.searchsorted(np.cumsum(row_tokens[order]), tokens)) + 1
        wanted = -(-reached // batch_sequences) * batch_sequences
    return order[:wanted].astype(np.int32)

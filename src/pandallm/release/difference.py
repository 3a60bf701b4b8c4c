"""A chunk's difference from the base's chunk: symbols grouped by the base's exponent, then packed.

The layout is specified in `docs/delta-format.md`, mode 1.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pandallm.errors import BadInput
from pandallm.release.floats import Float, Unsigned, exponents, ordered, unordered
from pandallm.release.parts import Reader, compress, join, planes

#: Weights a chunk holds at most: bounds memory, and statistics are nearly those of a whole tensor.
CHUNK = 1 << 20
#: Mode byte of a blob coded this way.
DIFFERENCE = 1
_BITS = (2, 4, 8)
#: The coding after those: positions of what is not 0, and those values less 1 in this many bits each.
_SPARSE, _VALUE_BITS = len(_BITS), 2
_BLOCK = 1 << 16
_EXPONENTS = np.arange(256, dtype=np.uint8)
#: Frames are closed at a class's end once they hold this much, so that rare exponents share one.
_FRAME_BYTES, _FRAME_COUNT = 2048, 4096
#: Classes smaller than this are not worth a choice of coding.
_FEW = 64
#: What one escaped symbol costs beyond its entropy, in bits, when a class's coding is chosen.
_ESCAPE_BITS = 2.0


def _zigzag(difference: Unsigned, kind: Float) -> Unsigned:
    signed = difference.view(np.dtype(f"<i{kind.bits // 8}"))
    out = signed >> (kind.bits - 1)
    out ^= signed << 1
    return out.view(kind.dtype)


def _unzigzag(symbols: Unsigned, kind: Float) -> Unsigned:
    sign = symbols & kind.dtype.type(1)
    np.negative(sign, out=sign)
    sign ^= symbols >> 1
    return sign


def _limited(symbols: Unsigned, bits: int) -> tuple[Unsigned, Unsigned]:
    """Symbols as bytes, at most 2^bits - 1; and, in full, those from that limit on, which escape."""
    limit = (1 << bits) - 1
    return np.minimum(symbols, limit).astype(np.uint8), symbols[symbols >= limit]


def _pack(small: Unsigned, bits: int) -> bytes:
    """Bytes below 2^bits -> `bits` each, the first in the lowest bits."""
    per = 8 // bits
    if per > 1:
        padded = np.zeros(-(-small.size // per) * per, np.uint8)
        padded[: small.size] = small
        rows = padded.reshape(-1, per)
        small = rows[:, 0].copy()
        for j in range(1, per):
            small |= rows[:, j] << np.uint8(bits * j)
    return small.tobytes()


def _unpacked(bits: int) -> Unsigned:
    """Table: packed byte -> its 8 / bits symbols, a byte each, as one integer."""
    shifts = range(0, 8, bits)
    rows = np.stack([(np.arange(256) >> shift) & ((1 << bits) - 1) for shift in shifts], axis=1).astype(np.uint8)
    return rows.reshape(-1).view(f"<u{len(shifts)}")


_UNPACKED = {bits: _unpacked(bits) for bits in _BITS}


def _unpack(packed: Unsigned, bits: int, count: int) -> Unsigned:
    return packed if bits == 8 else _UNPACKED[bits].take(packed).view(np.uint8)[:count]


def _choose(symbols: Unsigned) -> tuple[int, int]:
    """(low byte planes split off, index of the coding) that code these symbols in the fewest estimated bits."""
    width, count = symbols.dtype.itemsize, symbols.size
    if count < _FEW:
        return 0, len(_BITS) - 1
    symbols = symbols[:: max(1, count >> 13)]
    low = min(int(2 * float(symbols.mean()) + 1).bit_length() // 8, width - 1)
    best: tuple[float, int, int] | None = None
    for split in {low, max(low - 1, 0)}:
        high = np.minimum(symbols >> (8 * split) if split else symbols, 255).astype(np.uint8)
        for index, cost in enumerate(_costs(np.bincount(high, minlength=256), count)):
            if best is None or cost + 8 * split < best[0] - 1e-9:
                best = (cost + 8 * split, split, index)
    assert best is not None
    return best[1], best[2]


def _costs(histogram: Unsigned, count: int) -> list[float]:
    """Estimated bits a symbol of each coding, for a histogram (255: that and above) of a sample of `count` symbols."""
    # Counts, and sums of n log2 n, of the symbols 0, 1-2, 3-14, 15-254, 255.
    edges = (0, 1, 3, 15, 255)
    counts = [float(n) for n in np.add.reduceat(histogram, edges)]
    terms = [float(n) for n in np.add.reduceat(histogram * np.log2(np.maximum(histogram, 1)), edges)]
    total = sum(counts)

    def nlog(count: float) -> float:
        return count * math.log2(count) if count > 1 else 0.0

    costs = []
    for group, bits in enumerate(_BITS, 2):
        escaped = sum(counts[group:])
        each = (nlog(total) - sum(terms[:group]) - nlog(escaped)) / total
        # A Huffman code spends a whole bit on a byte however sure it is, and zstd's matches take more than they give
        # where a byte holds less than three bits.
        common = (counts[0] / total) ** (8 // bits)
        excess = common * max(0.0, 1 + math.log2(max(common, 1e-9))) * bits / 8
        damage = 1.01 + 0.15 * max(0.0, 3 - each * 8 / bits)
        escapes = nlog(escaped) - sum(terms[group:]) + _ESCAPE_BITS * escaped
        costs.append(each * damage + excess + escapes / total)
    others = total - counts[0]
    positions = nlog(total) - terms[0] - nlog(others)
    costs.append((1.02 * positions + 1.03 * (nlog(others) - sum(terms[1:])) + 0.1 * others) / total + 64 / count)
    return costs


class _Classes:
    """Elements sorted by the base's exponent, stably; `counts`: how many each exponent that occurs has.

    Sorted block by block, each of a size that the processor's caches hold, which takes half the time.
    """

    def __init__(self, base: Unsigned, kind: Float) -> None:
        self._orders: list[Unsigned] = []
        edges = []
        for first in range(0, base.size, _BLOCK):
            exponent = exponents(base[first : first + _BLOCK], kind)
            order = np.argsort(exponent, kind="stable")
            edges.append([*np.searchsorted(exponent.take(order), _EXPONENTS).tolist(), exponent.size])
            self._orders.append(order)
        bounds = np.array(edges)
        totals = np.diff(bounds, axis=1).sum(axis=0)
        present = np.flatnonzero(totals)
        self.counts: list[int] = totals[present].tolist()
        # Of each class: where it begins and ends in each block.
        self._begins: list[list[int]] = bounds[:, present].T.tolist()
        self._ends: list[list[int]] = bounds[:, present + 1].T.tolist()

    def blocks(self) -> Iterator[slice]:
        """The blocks, as they lie in the chunk."""
        return (slice(i * _BLOCK, i * _BLOCK + order.size) for i, order in enumerate(self._orders))

    def split(self, blocks: Iterable[Unsigned]) -> Iterator[Unsigned]:
        """Values of each block, in the chunk's order -> values of each class."""
        ordered_blocks = [block.take(order) for block, order in zip(blocks, self._orders, strict=True)]
        for begins, ends in zip(self._begins, self._ends, strict=True):
            yield np.concatenate([b[i:j] for b, i, j in zip(ordered_blocks, begins, ends, strict=True)])

    def join(self, classes: Sequence[Unsigned]) -> Iterator[Unsigned]:
        """Inverse of `split`."""
        at = [0] * len(classes)
        for number, order in enumerate(self._orders):
            parts = []
            for index, values in enumerate(classes):
                count = self._ends[index][number] - self._begins[index][number]
                parts.append(values[at[index] : at[index] + count])
                at[index] += count
            block = np.empty(order.size, classes[0].dtype)
            block[order] = np.concatenate(parts)
            yield block


def _gaps(positions: Unsigned) -> bytes:
    """Ascending positions -> a byte each: how many positions were left out before it; 255 leaves out 255 and names none."""
    gaps = np.diff(positions, prepend=-1) - 1
    if not gaps.size or int(gaps.max()) < 255:
        return gaps.astype(np.uint8).tobytes()
    skips, rest = np.divmod(gaps, 255)
    out = np.full(int(skips.sum()) + gaps.size, 255, np.uint8)
    out[np.cumsum(skips + 1) - 1] = rest
    return out.tobytes()


def _positions(gaps: Unsigned, count: int, size: int) -> Unsigned:
    """Inverse of `_gaps`: `count` positions below `size`; BadInput where it is otherwise."""
    steps = np.minimum(gaps, np.uint8(254)).astype(np.int32)
    steps += 1
    at = np.cumsum(steps, dtype=np.int32)
    named = gaps < 255
    positions = at[named] - 1
    if positions.size != count or (at.size and (int(at[-1]) > size or not named[-1])):
        raise BadInput("The delta is damaged: a chunk names positions that it does not have.")
    return positions


def encode_difference(base: Unsigned, target: Unsigned, kind: Float) -> bytes:
    classes = _Classes(base, kind)
    symbols = (_zigzag(ordered(target[b], kind) - ordered(base[b], kind), kind) for b in classes.blocks())
    width = kind.bits // 8
    codings, sparse, escapes, values = bytearray(), bytearray(), [], []
    low: list[list[bytes]] = [[] for _ in range(width - 1)]
    frames: list[tuple[int, bytes]] = []
    pending, covered, weights = bytearray(), 0, 0
    for count, part in zip(classes.counts, classes.split(symbols), strict=True):
        split, index = _choose(part)
        codings.append(index | split << 4)
        if split:
            for j, plane in enumerate(planes(part)[:split]):
                low[j].append(plane.tobytes())
            part = part >> (8 * split)
        if index == _SPARSE:
            positions = np.flatnonzero(part)
            packed = _gaps(positions)
            sparse += struct.pack("<II", len(packed), positions.size)
            small, escaped = _limited(part[positions] - kind.dtype.type(1), _VALUE_BITS)
            values.append(small)
        else:
            small, escaped = _limited(part, _BITS[index])
            packed = _pack(small, _BITS[index])
        escapes.append(escaped)
        pending += packed
        covered, weights = covered + 1, weights + count
        if len(pending) >= _FRAME_BYTES and weights >= _FRAME_COUNT:
            frames.append((covered, compress(bytes(pending))))
            pending, covered, weights = bytearray(), 0, 0
    if covered:
        frames.append((covered, compress(bytes(pending))))
    escaped = np.concatenate(escapes)
    tail = [compress(_pack(np.concatenate(values), _VALUE_BITS)) if values else b""]
    tail += [compress(b"".join(parts)) for parts in low] + [compress(p.tobytes()) for p in planes(escaped)]
    head = struct.pack("<BHHI", DIFFERENCE, len(codings), len(frames), escaped.size)
    lengths = b"".join(struct.pack("<HI", n, len(f)) for n, f in frames)
    lengths += struct.pack(f"<{len(tail)}I", *map(len, tail))
    return b"".join([head, bytes(codings), bytes(sparse), lengths, *(f for _, f in frames), *tail])


def decode_difference(reader: Reader, base: Unsigned, kind: Float) -> Unsigned:
    grouped = _Classes(base, kind)
    counts = grouped.counts
    width = kind.bits // 8
    classes, frame_count, escape_count = reader.unpack("HHI")
    codings = bytes(reader.take(classes))
    if classes != len(counts) or frame_count > classes or escape_count > base.size:
        raise BadInput("The delta is damaged, or made for another base: a chunk's classes do not fit.")
    if any((p & 15) > _SPARSE or (p >> 4) >= width for p in codings):
        raise BadInput("The delta is damaged: a chunk names a coding that does not exist.")
    kinds, splits = [p & 15 for p in codings], [p >> 4 for p in codings]
    named: list[int] = []  # of each class: how many symbols its packed bytes stand for
    packed_bytes: list[int] = []
    for n, index in zip(counts, kinds, strict=True):
        if index == _SPARSE:
            size, some = reader.unpack("II")
            if not some <= size <= n:
                raise BadInput("The delta is damaged: a chunk names positions that it does not have.")
            packed_bytes.append(size)
            named.append(some)
        else:
            packed_bytes.append(-(-n * _BITS[index] // 8))
            named.append(n)
    frames = [reader.unpack("HI") for _ in range(frame_count)]
    tail = reader.unpack(f"{2 * width}I")
    if any(not n for n, _ in frames) or sum(n for n, _ in frames) != classes:
        raise BadInput("The delta is damaged: a chunk's frames do not cover its classes.")
    packed, first = [], 0
    for covered, length in frames:
        packed.append(reader.frame(length, sum(packed_bytes[first : first + covered])))
        first += covered
    value_count = sum(n for n, index in zip(named, kinds, strict=True) if index == _SPARSE)
    values = _unpack(reader.frame(tail[0], -(-value_count * _VALUE_BITS // 8)), _VALUE_BITS, value_count)
    low = [
        reader.frame(tail[1 + j], sum(n for n, s in zip(counts, splits, strict=True) if s > j))
        for j in range(width - 1)
    ]
    escaped = join([reader.frame(tail[width + j], escape_count) for j in range(width)], kind.dtype)
    reader.end()

    stream = np.concatenate(packed)
    symbols: list[Unsigned] = []
    at_packed = at_escape = at_value = 0
    at_low = [0] * (width - 1)
    for n, index, split, size, some in zip(counts, kinds, splits, packed_bytes, named, strict=True):
        own = stream[at_packed : at_packed + size]
        at_packed += size
        if index == _SPARSE:
            small, limit = values[at_value : at_value + some], (1 << _VALUE_BITS) - 1
            at_value += some
        else:
            small, limit = _unpack(own, _BITS[index], n), (1 << _BITS[index]) - 1
        where = np.flatnonzero(small == limit)
        if where.size > escape_count - at_escape:
            raise BadInput("The delta is damaged: a chunk has fewer escaped values than it uses.")
        if index == _SPARSE:
            wide = small.astype(kind.dtype)
            wide[where] = escaped[at_escape : at_escape + where.size]
            wide += kind.dtype.type(1)
            part = np.zeros(n, kind.dtype)
            part[_positions(own, some, n)] = wide
        else:
            part = small.astype(kind.dtype)
            part[where] = escaped[at_escape : at_escape + where.size]
        at_escape += where.size
        if split:
            part <<= 8 * split
            for j in range(split):
                part |= low[j][at_low[j] : at_low[j] + n].astype(kind.dtype) << (8 * j)
                at_low[j] += n
        symbols.append(part)
    if at_escape != escape_count:
        raise BadInput("The delta is damaged: a chunk has more escaped values than it uses.")
    out = np.empty(base.size, kind.dtype)
    for place, block in zip(grouped.blocks(), grouped.join(symbols), strict=True):
        difference = _unzigzag(block, kind)
        difference += ordered(base[place], kind)
        out[place] = unordered(difference, kind)
    return out

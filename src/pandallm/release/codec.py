"""Exact coding of one chunk of weights, against a base's chunk or alone.

A weight's bits (sign and magnitude) map to an unsigned integer in the order of the numbers, so that two neighbouring
numbers are one apart. The difference of target and base is small where training moved a weight little, and its
distribution depends mostly on the base's exponent: symbols are grouped by it, which leaves little to gain above the
entropy given the exponent. Where most symbols are 0, 1 or 2, several go into one byte (2 or 4 bits each, larger ones
escape), because zstd's Huffman codes spend at least a bit a byte.

The layout of a blob is specified in `docs/delta-format.md`. Decoders check every length before they allocate or read.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from pandallm.errors import BadInput

#: Weights a chunk holds at most: bounds memory, and statistics are nearly those of a whole tensor.
CHUNK = 1 << 20
SAME, DIFFERENCE, PLANES, PLAIN = 0, 1, 2, 3
_BITS = (2, 4, 8)
#: A difference below the first share of the raw bytes is taken as it is; below the second, coding the chunk without its
#: base is tried only where a sample of it says that this may be near.
_SURE, _LIKELY = 0.1, 0.5
_SAMPLE_ITEMS, _SAMPLES = 8192, 4
#: Frames are closed at a class's end once they hold this much, so that rare exponents share one.
_FRAME_BYTES, _FRAME_COUNT = 2048, 4096
#: What one escaped symbol costs, in bits, when the number of bits a class gets is chosen.
_ESCAPE_BITS = 14.0

Unsigned = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Float:
    """Layout of a floating-point type: `bits` in all, of which `mantissa` are stored fraction bits."""

    bits: int
    mantissa: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def exponent_mask(self) -> int:
        return (1 << (self.bits - 1 - self.mantissa)) - 1


#: The types that differences are taken of, by safetensors name.
FLOATS = {"BF16": Float(16, 7), "F16": Float(16, 10), "F32": Float(32, 23)}
#: Bytes of one element, by safetensors name; types without a `Float` are coded without base.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


def ordered(bits: Unsigned, kind: Float) -> Unsigned:
    """Bit patterns -> unsigned integers in the order of the numbers (a bijection; -0.0 is one below 0.0)."""
    sign = np.dtype(f"<i{kind.bits // 8}")
    out: Unsigned = (bits.view(sign) >> (kind.bits - 1)).view(kind.dtype)
    out |= kind.dtype.type(1 << (kind.bits - 1))
    out ^= bits
    return out


def unordered(values: Unsigned, kind: Float) -> Unsigned:
    """Inverse of `ordered`."""
    sign = np.dtype(f"<i{kind.bits // 8}")
    out: Unsigned = (values.view(sign) >> (kind.bits - 1)).view(kind.dtype)
    np.invert(out, out=out)
    out |= kind.dtype.type(1 << (kind.bits - 1))
    out ^= values
    return out


def exponents(bits: Unsigned, kind: Float) -> Unsigned:
    """The biased exponent field of each bit pattern."""
    return ((bits >> kind.mantissa) & kind.dtype.type(kind.exponent_mask)).astype(np.uint8)


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


def _planes(values: Unsigned) -> list[Unsigned]:
    """Byte planes of little-endian integers, lowest first."""
    columns = values.view(np.uint8).reshape(-1, values.dtype.itemsize)
    return [np.ascontiguousarray(columns[:, j]) for j in range(columns.shape[1])]


def _join(planes: Sequence[Unsigned], dtype: np.dtype[Any]) -> Unsigned:
    columns = np.empty((planes[0].size, len(planes)), np.uint8)
    for j, plane in enumerate(planes):
        columns[:, j] = plane
    return columns.reshape(-1).view(dtype)


def _pack(symbols: Unsigned, bits: int) -> tuple[bytes, Unsigned]:
    """Symbols -> `bits` each, first in the lowest bits; those from 2^bits - 1 on become that limit and escape."""
    limit = (1 << bits) - 1
    escaped = symbols[symbols >= limit]
    small = np.minimum(symbols, limit).astype(np.uint8)
    per = 8 // bits
    if per > 1:
        padded = np.zeros(-(-small.size // per) * per, np.uint8)
        padded[: small.size] = small
        rows = padded.reshape(-1, per)
        small = rows[:, 0].copy()
        for j in range(1, per):
            small |= rows[:, j] << np.uint8(bits * j)
    return small.tobytes(), escaped


def _unpacked(bits: int) -> Unsigned:
    """Table: packed byte -> its 8 / bits symbols, a byte each, as one integer."""
    shifts = range(0, 8, bits)
    rows = np.stack([(np.arange(256) >> shift) & ((1 << bits) - 1) for shift in shifts], axis=1).astype(np.uint8)
    return rows.reshape(-1).view(f"<u{len(shifts)}")


_UNPACKED = {bits: _unpacked(bits) for bits in _BITS}


def _unpack(packed: Unsigned, bits: int, count: int) -> Unsigned:
    return packed if bits == 8 else _UNPACKED[bits].take(packed).view(np.uint8)[:count]


def _choose(symbols: Unsigned) -> tuple[int, int]:
    """(low byte planes split off, index into _BITS) that code these symbols in the fewest estimated bits."""
    width = symbols.dtype.itemsize
    symbols = symbols[:: max(1, symbols.size >> 15)]
    low = min(int(2 * float(symbols.mean()) + 1).bit_length() // 8, width - 1)
    best: tuple[float, int, int] | None = None
    for split in {low, max(low - 1, 0)}:
        histogram = np.bincount(np.minimum(symbols >> (8 * split), 255), minlength=256)
        for index, bits in enumerate(_BITS):
            limit = (1 << bits) - 1
            escaped = float(histogram[limit:].sum())
            share = histogram[:limit] / symbols.size
            share[share == 0] = 1.0
            rest = max(escaped, 1.0) / symbols.size
            entropy = -float((share * np.log2(share)).sum()) - rest * math.log2(rest)
            cost = max(entropy, bits / 8) + 8 * split + _ESCAPE_BITS * escaped / symbols.size
            if best is None or cost < best[0] - 1e-9:
                best = (cost, split, index)
    assert best is not None
    return best[1], best[2]


def _compress(data: bytes | memoryview) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data) if len(data) else b""


def _classes(base: Unsigned, kind: Float) -> tuple[Unsigned, list[int]]:
    """The stable order by exponent, and how many elements each exponent that occurs has."""
    exponent = exponents(base, kind)
    order = np.argsort(exponent, kind="stable")
    bounds = np.searchsorted(exponent[order], np.arange(257))
    return order, [int(n) for n in np.diff(bounds) if n]


def _encode_difference(base: Unsigned, target: Unsigned, kind: Float) -> bytes:
    order, counts = _classes(base, kind)
    symbols = _zigzag(ordered(target, kind) - ordered(base, kind), kind)[order]
    width = kind.bits // 8
    params, escapes = bytearray(), []
    low: list[list[bytes]] = [[] for _ in range(width - 1)]
    frames: list[tuple[int, bytes]] = []
    pending, classes, weights, start = bytearray(), 0, 0, 0
    for count in counts:
        part = symbols[start : start + count]
        start += part.size
        split, index = _choose(part)
        params.append(index | split << 4)
        if split:
            for j, plane in enumerate(_planes(part)[:split]):
                low[j].append(plane.tobytes())
        packed, escaped = _pack(part >> (8 * split), _BITS[index])
        escapes.append(escaped)
        pending += packed
        classes, weights = classes + 1, weights + part.size
        if len(pending) >= _FRAME_BYTES and weights >= _FRAME_COUNT:
            frames.append((classes, _compress(bytes(pending))))
            pending, classes, weights = bytearray(), 0, 0
    if classes:
        frames.append((classes, _compress(bytes(pending))))
    escaped = np.concatenate(escapes)
    tail = [_compress(b"".join(parts)) for parts in low] + [_compress(p.tobytes()) for p in _planes(escaped)]
    head = struct.pack("<BHHI", DIFFERENCE, len(params), len(frames), escaped.size)
    lengths = b"".join(struct.pack("<HI", n, len(f)) for n, f in frames) + struct.pack(
        f"<{len(tail)}I", *map(len, tail)
    )
    return b"".join([head, bytes(params), lengths, *(f for _, f in frames), *tail])


def _rotated(bits: Unsigned, dtype: str) -> Unsigned:
    """A float's sign moved to the lowest bit, which puts its exponent into the highest byte plane."""
    kind = FLOATS.get(dtype)
    return bits if kind is None else (bits << 1) | (bits >> (kind.bits - 1))


def _unrotated(bits: Unsigned, dtype: str) -> Unsigned:
    kind = FLOATS.get(dtype)
    return bits if kind is None else (bits >> 1) | (bits << (kind.bits - 1))


def _unsigned(data: bytes, dtype: str) -> Unsigned:
    return np.frombuffer(data, np.dtype(f"<u{ITEM_BYTES[dtype]}"))


def encode(target: bytes, dtype: str, base: bytes | None = None) -> bytes:
    """One chunk of `target`, coded against `base` (same type and length) where that is smaller, else alone.

    target, base: little-endian elements of safetensors type `dtype`, at most CHUNK of them. The blob is at most one
    byte longer than what zstd level 1 makes of `target`, unless it is below a tenth of `target`, or below half of it
    and far below what zstd makes of a sample.
    """
    if base is not None and base == target:
        return bytes([SAME])
    best: bytes | None = None
    if base is not None and dtype in FLOATS and target:
        best = _encode_difference(_unsigned(base, dtype), _unsigned(target, dtype), FLOATS[dtype])
        if len(best) < _SURE * len(target):
            return best
        sample = _sample(target, ITEM_BYTES[dtype])
        if len(best) < _LIKELY * len(target) and 1.5 * len(best) / len(target) < len(_alone(sample, dtype)) / len(
            sample
        ):
            return best
    return min([c for c in (best, _alone(target, dtype)) if c is not None], key=len)


def _alone(target: bytes, dtype: str) -> bytes:
    plain = bytes([PLAIN]) + _compress(target)
    if ITEM_BYTES[dtype] == 1 or not target:
        return plain
    planes = [_compress(p.tobytes()) for p in _planes(_rotated(_unsigned(target, dtype), dtype))]
    return min(plain, b"".join([bytes([PLANES]), struct.pack(f"<{len(planes)}I", *map(len, planes)), *planes]), key=len)


def _sample(data: bytes, item: int) -> bytes:
    """Some stretches of the data, evenly spread; all of it where it is short."""
    stretch, count = _SAMPLE_ITEMS * item, len(data) // item
    if len(data) <= stretch * _SAMPLES:
        return data
    firsts = [count * i // _SAMPLES * item for i in range(_SAMPLES)]
    return b"".join(data[first : first + stretch] for first in firsts)


class _Reader:
    """A blob read front to back; every step checks that the bytes are there."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = memoryview(blob), 0

    def take(self, count: int) -> memoryview:
        if count > len(self._blob) - self._at:
            raise BadInput("The delta is damaged: a chunk ends too early.")
        self._at += count
        return self._blob[self._at - count : self._at]

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def frame(self, length: int, raw: int) -> Unsigned:
        """A zstd frame of `length` bytes that must hold exactly `raw` bytes (nothing at all for none)."""
        data = self.take(length)
        if not raw and not length:
            return np.empty(0, np.uint8)
        try:
            # The frame's own claim is compared first: the decoder allocates what the frame says.
            if zstandard.frame_content_size(data) == raw:
                out = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw, allow_extra_data=False)
                if len(out) == raw:
                    return np.frombuffer(out, np.uint8)
        except zstandard.ZstdError:
            pass
        raise BadInput("The delta is damaged: a compressed part does not hold what it should.")

    def end(self) -> None:
        if self._at != len(self._blob):
            raise BadInput("The delta is damaged: a chunk is longer than its contents.")


def _decode_difference(reader: _Reader, base: Unsigned, kind: Float) -> Unsigned:
    order, counts = _classes(base, kind)
    width = kind.bits // 8
    classes, frame_count, escape_count = reader.unpack("HHI")
    params = bytes(reader.take(classes))
    if classes != len(counts) or frame_count > classes or escape_count > base.size:
        raise BadInput("The delta is damaged, or made for another base: a chunk's classes do not fit.")
    if any((p & 15) >= len(_BITS) or (p >> 4) >= width for p in params):
        raise BadInput("The delta is damaged: a chunk names a coding that does not exist.")
    bits = [_BITS[p & 15] for p in params]
    splits = [p >> 4 for p in params]
    packed_bytes = [-(-n * b // 8) for n, b in zip(counts, bits, strict=True)]
    frames = [reader.unpack("HI") for _ in range(frame_count)]
    tail = reader.unpack(f"{2 * width - 1}I")
    if any(not n for n, _ in frames) or sum(n for n, _ in frames) != classes:
        raise BadInput("The delta is damaged: a chunk's frames do not cover its classes.")
    packed, first = [], 0
    for covered, length in frames:
        packed.append(reader.frame(length, sum(packed_bytes[first : first + covered])))
        first += covered
    low = [
        reader.frame(tail[j], sum(n for n, s in zip(counts, splits, strict=True) if s > j)) for j in range(width - 1)
    ]
    escaped = _join([reader.frame(tail[width - 1 + j], escape_count) for j in range(width)], kind.dtype)
    reader.end()

    stream = np.concatenate(packed)
    symbols = np.empty(base.size, kind.dtype)
    at_packed = at_escape = start = 0
    at_low = [0] * (width - 1)
    for n, b, split, size in zip(counts, bits, splits, packed_bytes, strict=True):
        small = _unpack(stream[at_packed : at_packed + size], b, n)
        at_packed += size
        part = symbols[start : start + n]
        part[:] = small
        where = np.flatnonzero(small == (1 << b) - 1)
        if where.size > escape_count - at_escape:
            raise BadInput("The delta is damaged: a chunk has fewer escaped values than it uses.")
        part[where] = escaped[at_escape : at_escape + where.size]
        at_escape += where.size
        if split:
            part <<= 8 * split
            for j in range(split):
                part |= low[j][at_low[j] : at_low[j] + n].astype(kind.dtype) << (8 * j)
                at_low[j] += n
        start += n
    if at_escape != escape_count:
        raise BadInput("The delta is damaged: a chunk has more escaped values than it uses.")
    difference = np.empty(base.size, kind.dtype)
    difference[order] = _unzigzag(symbols, kind)
    difference += ordered(base, kind)
    return unordered(difference, kind)


def decode(blob: bytes, dtype: str, count: int, base: bytes | None = None) -> bytes:
    """The `count` elements that `encode` was given, in memory of a few chunks; BadInput where the blob does not fit."""
    if dtype not in ITEM_BYTES or not 0 <= count <= CHUNK:
        raise BadInput(f"The delta is damaged: a chunk of {count} elements of type {dtype} cannot be.")
    raw = count * ITEM_BYTES[dtype]
    if base is not None and len(base) != raw:
        raise BadInput("The delta is damaged, or made for another base: a chunk's length does not fit the base.")
    reader = _Reader(blob)
    (mode,) = reader.unpack("B")
    if mode == SAME and base is not None:
        reader.end()
        return base
    if mode == DIFFERENCE and base is not None and dtype in FLOATS and count:
        return _decode_difference(reader, _unsigned(base, dtype), FLOATS[dtype]).tobytes()
    if mode == PLAIN:
        out = reader.frame(len(blob) - 1, raw)
        return out.tobytes()
    if mode == PLANES and count and ITEM_BYTES[dtype] > 1:
        lengths = reader.unpack(f"{ITEM_BYTES[dtype]}I")
        planes = [reader.frame(length, count) for length in lengths]
        reader.end()
        return _unrotated(_join(planes, np.dtype(f"<u{ITEM_BYTES[dtype]}")), dtype).tobytes()
    raise BadInput(f"The delta is damaged: a chunk has coding {mode}, which does not fit here.")


def cast(data: bytes, source: str, target: str) -> bytes:
    """Elements of float type `source` -> the nearest of `target`, ties to even; any NaN becomes the plain quiet NaN.

    The rule leaves nothing open, so that a base converts to the same bytes on every machine. Types: BF16, F16, F32.
    """
    if source == target:
        return data
    bits = _unsigned(data, source)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if source == "BF16":
            wide = bits.astype("<u4") << 16
        elif source == "F16":
            wide = bits.view("<f2").astype("<f4").view("<u4")
        else:
            wide = bits
        nan = (wide & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        if target == "F32":
            return np.where(nan, np.uint32(0x7FC00000), wide).astype("<u4").tobytes()
        if target == "F16":
            half = wide.view("<f4").astype("<f2").view("<u2")
            return np.where(nan, np.uint16(0x7E00), half).astype("<u2").tobytes()
        rounded = (wide.astype("<u8") + 0x7FFF + ((wide >> 16) & np.uint32(1))) >> 16
        return np.where(nan, 0x7FC0, rounded).astype("<u2").tobytes()

"""Exact coding of one chunk of weights, against a base's chunk or alone.

A weight's bits (sign and magnitude) map to an unsigned integer in the order of the numbers, so that two neighbouring
numbers are one apart. The difference of target and base is small where training moved a weight little, and its
distribution depends mostly on the base's exponent: symbols are grouped by it, which leaves little to gain above the
entropy given the exponent. Where most symbols are 0, 1 or 2, several go into one byte (2 or 4 bits each, larger ones
escape), because zstd's Huffman codes spend at least a bit a byte; where nearly all are 0, the others' positions are coded.

The layout of a blob is specified in `docs/delta-format.md`. Decoders check every length before they allocate or read.
"""

import struct

import numpy as np
import zstandard

from pandallm.errors import BadInput
from pandallm.release.difference import CHUNK, DIFFERENCE, decode_difference, encode_difference
from pandallm.release.floats import FLOATS, ITEM_BYTES, Float, Unsigned, cast, exponents, ordered, unordered, unsigned
from pandallm.release.parts import Reader, compress, join, planes

__all__ = ["CHUNK", "FLOATS", "ITEM_BYTES", "Float", "cast", "decode", "encode", "exponents", "ordered", "unordered"]

SAME, PLANES, PLAIN = 0, 2, 3
#: A difference below the first share of the raw bytes is taken as it is; below the second, coding the chunk without its
#: base is tried only where a sample of it says that this may be near.
_SURE, _LIKELY = 0.1, 0.5
_SAMPLE_ITEMS, _SAMPLES = 8192, 4


def _rotated(bits: Unsigned, dtype: str) -> Unsigned:
    """A float's sign moved to the lowest bit, which puts its exponent into the highest byte plane."""
    kind = FLOATS.get(dtype)
    return bits if kind is None else (bits << 1) | (bits >> (kind.bits - 1))


def _unrotated(bits: Unsigned, dtype: str) -> Unsigned:
    kind = FLOATS.get(dtype)
    return bits if kind is None else (bits >> 1) | (bits << (kind.bits - 1))


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
        best = encode_difference(unsigned(base, dtype), unsigned(target, dtype), FLOATS[dtype])
        if len(best) < _SURE * len(target):
            return best
        sample = _sample(target, ITEM_BYTES[dtype])
        if len(best) < _LIKELY * len(target) and 1.5 * len(best) / len(target) < len(_alone(sample, dtype)) / len(
            sample
        ):
            return best
    return min([c for c in (best, _alone(target, dtype)) if c is not None], key=len)


def _alone(target: bytes, dtype: str) -> bytes:
    single = ITEM_BYTES[dtype] == 1  # files too: text gains from a search for long matches, weights do not
    plain = bytes([PLAIN])
    if target:
        plain += zstandard.ZstdCompressor(level=3 if single else 1).compress(target)
    if single or not target:
        return plain
    frames = [compress(p.tobytes()) for p in planes(_rotated(unsigned(target, dtype), dtype))]
    return min(plain, b"".join([bytes([PLANES]), struct.pack(f"<{len(frames)}I", *map(len, frames)), *frames]), key=len)


def _sample(data: bytes, item: int) -> bytes:
    """Some stretches of the data, evenly spread; all of it where it is short."""
    stretch, count = _SAMPLE_ITEMS * item, len(data) // item
    if len(data) <= stretch * _SAMPLES:
        return data
    firsts = [count * i // _SAMPLES * item for i in range(_SAMPLES)]
    return b"".join(data[first : first + stretch] for first in firsts)


def decode(blob: bytes, dtype: str, count: int, base: bytes | None = None) -> bytes:
    """The `count` elements that `encode` was given, in memory of a few chunks; BadInput where the blob does not fit."""
    if dtype not in ITEM_BYTES or not 0 <= count <= CHUNK:
        raise BadInput(f"The delta is damaged: a chunk of {count} elements of type {dtype} cannot be.")
    raw = count * ITEM_BYTES[dtype]
    if base is not None and len(base) != raw:
        raise BadInput("The delta is damaged, or made for another base: a chunk's length does not fit the base.")
    reader = Reader(blob)
    (mode,) = reader.unpack("B")
    if mode == SAME and base is not None:
        reader.end()
        return base
    if mode == DIFFERENCE and base is not None and dtype in FLOATS and count:
        return decode_difference(reader, unsigned(base, dtype), FLOATS[dtype]).tobytes()
    if mode == PLAIN:
        out = reader.frame(len(blob) - 1, raw)
        return out.tobytes()
    if mode == PLANES and count and ITEM_BYTES[dtype] > 1:
        lengths = reader.unpack(f"{ITEM_BYTES[dtype]}I")
        frames = [reader.frame(length, count) for length in lengths]
        reader.end()
        return _unrotated(join(frames, np.dtype(f"<u{ITEM_BYTES[dtype]}")), dtype).tobytes()
    raise BadInput(f"The delta is damaged: a chunk has coding {mode}, which does not fit here.")

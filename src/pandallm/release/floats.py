"""Floating-point types as bit patterns: their order, and exact rules for converting between them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

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


def unsigned(data: bytes, dtype: str) -> Unsigned:
    """Little-endian elements of safetensors type `dtype` as unsigned integers of the same width."""
    return np.frombuffer(data, np.dtype(f"<u{ITEM_BYTES[dtype]}"))


def cast(data: bytes, source: str, target: str) -> bytes:
    """Elements of float type `source` -> the nearest of `target`, ties to even; any NaN becomes the plain quiet NaN.

    The rule leaves nothing open, so that a base converts to the same bytes on every machine. Types: BF16, F16, F32.
    """
    if source == target:
        return data
    bits = unsigned(data, source)
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

"""A second reader, written from `docs/delta-format.md` alone in plain Python, reads what the codec writes."""

import struct

import numpy as np
import pytest
import zstandard

from pandallm.release.codec import FLOATS, cast, encode
from pandallm.release.difference import encode_difference

EXPONENT = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}


def take(blob: bytes, at: int, length: int) -> bytes:
    return zstandard.ZstdDecompressor().decompress(blob[at : at + length]) if length else b""


def read_difference(blob: bytes, dtype: str, base: list[int]) -> list[int]:
    w = 4 if dtype == "F32" else 2
    top, mask = 1 << (8 * w - 1), (1 << 8 * w) - 1
    shift, field = EXPONENT[dtype]
    mode, n_classes, n_frames, n_escapes = struct.unpack_from("<BHHI", blob)
    assert mode == 1
    order = sorted(range(len(base)), key=lambda i: base[i] >> shift & field)
    classes = sorted({u >> shift & field for u in base})
    sizes = [sum(u >> shift & field == c for u in base) for c in classes]
    codings, at = blob[9 : 9 + n_classes], 9 + n_classes
    gaps = []
    for coding in codings:
        if coding & 15 == 3:
            gaps.append(struct.unpack_from("<II", blob, at))
            at += 8
    frames = [struct.unpack_from("<HI", blob, at + 6 * i) for i in range(n_frames)]
    at += 6 * n_frames
    lengths = struct.unpack_from(f"<{2 * w}I", blob, at)
    at += 4 * (2 * w)
    packed = b""
    for _, length in frames:
        packed, at = packed + take(blob, at, length), at + length
    planes = []
    for length in lengths:
        planes.append(take(blob, at, length))
        at += length
    assert at == len(blob)
    assert sum(c for c, _ in frames) == n_classes == len(classes)
    values, low, escape_planes = [b >> k & 3 for b in planes[0] for k in (0, 2, 4, 6)], planes[1:w], planes[w:]
    escapes = [sum(escape_planes[j][i] << 8 * j for j in range(w)) for i in range(n_escapes)]
    symbols, low_at = [], [0] * (w - 1)
    for coding, size in zip(codings, sizes, strict=True):
        k, s = (2, 4, 8, 2)[coding & 15], coding >> 4
        high, used = [0] * size, -(-size * k // 8)
        if coding & 15 == 3:
            (used, some), place, found = gaps.pop(0), -1, 0
            for gap in packed[:used]:
                place += gap + (gap < 255)
                if gap < 255:
                    value = values.pop(0)
                    high[place], found = (escapes.pop(0) if value == 3 else value) + 1, found + 1
            assert found == some
        else:
            for i in range(size):
                h = packed[i * k // 8] >> (i * k % 8) & ((1 << k) - 1)
                high[i] = escapes.pop(0) if h == (1 << k) - 1 else h
        packed = packed[used:]
        for h in high:
            symbol = h << 8 * s
            for j in range(s):
                symbol |= low[j][low_at[j]] << 8 * j
                low_at[j] += 1
            symbols.append(symbol)
    assert not escapes
    assert not any(values)
    assert not packed
    out = [0] * len(base)
    for i, symbol in zip(order, symbols, strict=True):
        d = symbol // 2 if symbol % 2 == 0 else -(symbol + 1) // 2
        u = base[i]
        value = ((~u & mask if u & top else u | top) + d) & mask
        out[i] = value & ~top if value & top else ~value & mask
    return out


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("drift", [1e-4, 1e-3, 1e-1, 3.0])
def test_second_reader(dtype: str, drift: float) -> None:
    random = np.random.default_rng(4)
    weights = (random.standard_normal(6000) * 0.05).astype("<f4")
    weights[::50] = 0
    moved = (weights + 0.05 * drift * random.standard_normal(6000)).astype("<f4")
    moved[::7] = weights[::7]
    kind = FLOATS[dtype]
    base, target = (np.frombuffer(cast(x.tobytes(), "F32", dtype), kind.dtype) for x in (weights, moved))
    assert read_difference(encode_difference(base, target, kind), dtype, base.tolist()) == target.tolist()


def test_planes() -> None:
    values = np.random.default_rng(4).standard_normal(500).astype("<f4").view("<u4")
    blob = encode(values.tobytes(), "F32")
    assert blob[0] == 2
    lengths, at, planes = struct.unpack_from("<4I", blob, 1), 17, []
    for length in lengths:
        planes.append(take(blob, at, length))
        at += length
    rotated = [sum(planes[j][i] << 8 * j for j in range(4)) for i in range(500)]
    assert [(r >> 1 | (r & 1) << 31) for r in rotated] == values.tolist()
    assert planes[3] == bytes((values >> 23 & 0xFF).astype(np.uint8))

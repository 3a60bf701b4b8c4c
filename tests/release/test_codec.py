"""The codec gives back the very bits, refuses what is damaged, and is never larger than plain zstd."""

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.release import codec, difference
from pandallm.release.codec import CHUNK, FLOATS, ITEM_BYTES, Float, cast, decode, encode
from pandallm.release.difference import encode_difference
from pandallm.release.floats import unsigned

KINDS = sorted(FLOATS)
#: Zeros, smallest denormals, largest denormal, infinities, NaN with payloads, of either sign.
SPECIAL = {
    "BF16": [0, 0x8000, 1, 0x8001, 0x7F, 0x807F, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFFF, 0x7FFF],
    "F16": [0, 0x8000, 1, 0x8001, 0x3FF, 0x83FF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF, 0x7FFF],
    "F32": [0, 1 << 31, 1, (1 << 31) + 1, 0x7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF],
}


def bit_patterns(dtype: str, size: int) -> st.SearchStrategy[list[int]]:
    top = (1 << FLOATS[dtype].bits) - 1
    return st.lists(st.one_of(st.integers(0, top), st.sampled_from(SPECIAL[dtype])), min_size=size, max_size=size)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A type, a base and a target that is near it, far from it, or both."""
    dtype = draw(st.sampled_from(KINDS))
    kind = FLOATS[dtype].dtype
    size = draw(st.integers(0, 60))
    base = np.array(draw(bit_patterns(dtype, size)), kind)
    near = np.array(draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size)), np.int64)
    far = np.array(draw(bit_patterns(dtype, size)), kind)
    moved = (base.astype(np.int64) + near).astype(kind)
    target = np.where(np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool), moved, far)
    return dtype, base.tobytes(), target.astype(kind).tobytes()


@given(pairs())
@settings(deadline=None, max_examples=150)
def test_any_bits_come_back(case: tuple[str, bytes, bytes]) -> None:
    dtype, base, target = case
    count = len(target) // ITEM_BYTES[dtype]
    assert decode(encode(target, dtype, base), dtype, count, base) == target
    assert decode(encode(target, dtype), dtype, count) == target
    if count:  # also where coding it alone would have been chosen
        blob = encode_difference(unsigned(base, dtype), unsigned(target, dtype), FLOATS[dtype])
        assert decode(blob, dtype, count, base) == target


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("drift", [1e-4, 1e-2, 1.0])
def test_drifted_weights_come_back_and_are_small(dtype: str, drift: float) -> None:
    base, target = drifted(dtype, drift, 40_000)
    blob = encode(target, dtype, base)
    assert decode(blob, dtype, 40_000, base) == target
    assert len(blob) <= 1 + len(zstandard.ZstdCompressor(level=1).compress(target))


def drifted(dtype: str, drift: float, size: int) -> tuple[bytes, bytes]:
    random = np.random.default_rng(5)
    base = (random.standard_normal(size) * 0.04).astype("<f4")
    moved = (base * (1 + drift * random.standard_normal(size))).astype("<f4")
    return cast(base.tobytes(), "F32", dtype), cast(moved.tobytes(), "F32", dtype)


@pytest.mark.parametrize("dtype", KINDS)
def test_within_a_twelfth_of_the_entropy_given_the_exponent(dtype: str) -> None:
    size = 400_000
    base, target = drifted(dtype, 6e-3, size)
    kind = FLOATS[dtype]
    b, t = np.frombuffer(base, kind.dtype), np.frombuffer(target, kind.dtype)
    moved = codec.ordered(t, kind).astype(np.int64) - codec.ordered(b, kind).astype(np.int64)
    bits = 0.0
    for exponent in np.unique(codec.exponents(b, kind)):
        part = moved[codec.exponents(b, kind) == exponent]
        if dtype == "F32":  # the counts of single differences say nothing here; a normal distribution's entropy does
            bits += part.size * 0.5 * np.log2(2 * np.pi * np.e * max(part.astype(float).var(), 1.0))
        else:
            share = np.unique(part, return_counts=True)[1] / part.size
            bits -= part.size * float((share * np.log2(share)).sum())
    assert len(encode(target, dtype, base)) * 8 < bits * (1 + 1 / 12)


@pytest.mark.parametrize("dtype", KINDS)
def test_order_is_that_of_the_numbers(dtype: str) -> None:
    kind = FLOATS[dtype]
    if dtype == "BF16":
        bits = np.arange(1 << 16, dtype="<u2")
        values = (bits.astype("<u4") << 16).view("<f4")
    elif dtype == "F16":
        bits = np.arange(1 << 16, dtype="<u2")
        values = bits.view("<f2").astype("<f4")
    else:
        bits = np.random.default_rng(1).integers(0, 1 << 32, 50_000, dtype=np.uint32)
        values = bits.view("<f4")
    ordered = codec.ordered(bits, kind)
    assert np.array_equal(codec.unordered(ordered, kind), bits)
    finite = np.isfinite(values)
    sorted_values = values[finite][np.argsort(ordered[finite])]
    assert (np.diff(sorted_values) >= 0).all()


def test_unchanged_chunk_is_one_byte() -> None:
    assert len(encode(b"\1\2" * 100, "BF16", b"\1\2" * 100)) == 1


def test_target_that_zstd_codes_better_than_its_difference() -> None:
    base = np.random.default_rng(0).integers(0, 1 << 32, 20_000, dtype=np.uint32).tobytes()
    blob = encode(bytes(80_000), "F32", base)
    assert len(blob) < 100
    assert decode(blob, "F32", 20_000, base) == bytes(80_000)


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_every_type_is_coded_alone(dtype: str) -> None:
    data = np.random.default_rng(2).integers(0, 9, 300 * ITEM_BYTES[dtype], dtype=np.uint8).tobytes()
    blob = encode(data, dtype)
    assert decode(blob, dtype, 300) == data
    assert decode(encode(b"", dtype), dtype, 0) == b""


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_blobs_raise_bad_input_or_give_the_right_length(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(KINDS))
    base, target = drifted(dtype, data.draw(st.sampled_from([1e-3, 3e-2, 1.0])), 500)
    kind = FLOATS[dtype]
    blob = bytearray(
        data.draw(
            st.sampled_from(
                [
                    encode(target, dtype),
                    encode_difference(*(np.frombuffer(x, kind.dtype) for x in (base, target)), kind),
                ]
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, min(len(blob) - 1, 80)))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    for hostile in (bytes(blob), bytes(blob[:cut]), bytes(blob) + b"x", data.draw(st.binary(max_size=80))):
        try:
            out = decode(hostile, dtype, 500, base)
        except BadInput:
            continue
        assert len(out) == len(target)


def test_frame_that_claims_gigabytes_is_refused_unread() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(BadInput, match="compressed part"):
        decode(bytes([codec.PLAIN]) + bomb, "F32", 10)
    with pytest.raises(BadInput, match="cannot be"):
        decode(bytes([codec.PLAIN]) + bomb, "F32", CHUNK + 1)


def test_chunk_of_another_base_is_refused_or_wrong_but_never_crashes() -> None:
    base, target = drifted("BF16", 1e-3, 2000)
    blob = encode(target, "BF16", base)
    with pytest.raises(BadInput, match="another base"):
        decode(blob, "BF16", 2000, b"\0" * 4000)
    with pytest.raises(BadInput, match="coding 1"):
        decode(blob, "BF16", 2000)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_cast_is_what_torch_does(source: str, target: str) -> None:
    import torch

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    if source == "F32":
        near = (np.random.default_rng(3).standard_normal(20_000) * np.exp(np.linspace(-40, 20, 20_000))).astype("<f4")
        data = near.tobytes() + struct.pack("<10I", *SPECIAL["F32"])
    else:
        data = np.arange(1 << 16, dtype="<u2").tobytes()
    ours = torch.frombuffer(bytearray(cast(data, source, target)), dtype=types[target])
    theirs = torch.frombuffer(bytearray(data), dtype=types[source]).to(types[target])
    assert torch.equal(torch.isnan(ours), torch.isnan(theirs))
    assert torch.equal(torch.nan_to_num(ours, 7.0), torch.nan_to_num(theirs, 7.0))
    assert torch.equal(torch.signbit(ours)[~torch.isnan(ours)], torch.signbit(theirs)[~torch.isnan(ours)])


def test_layout_of_floats() -> None:
    assert FLOATS["BF16"] == Float(16, 7)
    assert [FLOATS[k].exponent_mask for k in ("BF16", "F16", "F32")] == [255, 31, 255]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("far", [1, 40_000])
def test_few_changes_are_coded_as_positions(dtype: str, far: int) -> None:
    kind = FLOATS[dtype]
    random = np.random.default_rng(6)
    base = np.frombuffer(drifted(dtype, 0.0, 200_000)[0], kind.dtype)
    target = base.copy()
    changed = random.choice(base.size, 400, replace=False)
    target[changed] += random.integers(1, far + 1, 400).astype(kind.dtype)
    blob = encode(target.tobytes(), dtype, base.tobytes())
    assert decode(blob, dtype, base.size, base.tobytes()) == target.tobytes()
    codings = blob[9 : 9 + int.from_bytes(blob[1:3], "little")]
    assert any(c & 15 == difference._SPARSE for c in codings)
    assert len(blob) < 400 * (2.5 if far == 1 else 5)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_gaps(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3000))
    positions = np.flatnonzero(
        np.random.default_rng(data.draw(st.integers(0, 99))).random(size)
        < data.draw(st.sampled_from([0, 1e-3, 0.3, 1]))
    )
    gaps = np.frombuffer(difference._gaps(positions), np.uint8)
    assert positions.size <= gaps.size <= size
    assert np.array_equal(difference._positions(gaps, positions.size, size), positions)
    hostile = np.frombuffer(data.draw(st.binary(max_size=30)), np.uint8)
    try:
        found = difference._positions(hostile, data.draw(st.integers(0, 30)), size)
    except BadInput:
        return
    assert (np.diff(found) > 0).all()
    assert not found.size or (found[0] >= 0 and found[-1] < size)

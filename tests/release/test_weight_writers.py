"""Files of weights written as a stream are what safetensors and torch read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.release.torch_files import read_torch_file
from pandallm.release.weight_writers import Described, write_safetensors, write_torch

TENSORS = [
    Described("a.weight", "F16", (3, 5)),
    Described("b.中", "F32", (7,)),
    Described("scalar", "BF16", ()),
    Described("empty", "F32", (0, 4)),
    Described("counts", "I64", (2, 1, 2)),
    Described("mask", "BOOL", (3,)),
]


def values(tensor: Described) -> bytes:
    return bytes((i * 7 + len(tensor.name)) % 2 for i in range(tensor.bytes))


def in_parts(size: int) -> Iterator[bytes]:
    for tensor in TENSORS:
        data = values(tensor)
        yield from (data[i : i + size] for i in range(0, len(data), size))


@pytest.mark.parametrize("size", [3, 1000])
def test_torch_reads_what_is_written(tmp_path: Path, size: int) -> None:
    import torch

    path = tmp_path / "pytorch_model.bin"
    write_torch(path, TENSORS, in_parts(size))
    for mmap in (False, True):
        state = torch.load(path, weights_only=True, mmap=mmap)
        assert list(state) == [t.name for t in TENSORS]
        for tensor in TENSORS:
            got = state[tensor.name]
            assert tuple(got.shape) == tensor.shape
            assert got.is_contiguous()
            assert bytes(got.reshape(-1).view(torch.uint8).tolist() if got.numel() else []) == values(tensor)
    found = read_torch_file(path)
    raw = path.read_bytes()
    for tensor in TENSORS:
        dtype, shape, offset, count = found[tensor.name]
        assert (dtype, shape, raw[offset : offset + count]) == (tensor.dtype, tensor.shape, values(tensor))
        assert offset % 64 == 0


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    from safetensors import safe_open

    from pandallm.release.weights import read_elements, read_weight_file

    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS, in_parts(4))
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"format": "pt"}
        assert set(f.keys()) == {t.name for t in TENSORS}
    read = {t.name: t for t in read_weight_file(path).tensors}
    for tensor in TENSORS:
        assert read_elements(read[tensor.name], 0, tensor.count) == values(tensor)


def test_types_that_torch_files_lack_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="F8_E4M3, which \\.bin files lack"):
        write_torch(tmp_path / "x.bin", [Described("x", "F8_E4M3", (1,))], iter([b"\0"]))
    assert not (tmp_path / "x.bin").exists()


def test_large_numbers_in_the_description(tmp_path: Path) -> None:
    """Sizes beyond 31 bits are written as PyTorch's long integers."""
    import pickle

    from pandallm.release.weight_writers import _number

    for value in (0, 255, 2**31 - 1, 2**31, 2**40, 2**62):
        assert pickle.loads(b"\x80\x02" + _number(value) + b".") == value

"""Files of weights written as a stream: safetensors, and PyTorch's `.bin` without torch.

Both take the tensors' descriptions first and their bytes after, in the same order, so that no tensor is ever held whole.
"""

import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from pandallm.errors import BadInput
from pandallm.release.codec import ITEM_BYTES

#: safetensors' names of types -> PyTorch's storage classes.
_STORAGES = {
    "F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
    "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}  # fmt: skip
#: Where PyTorch puts the start of every tensor's data.
_ALIGN = 64
_ZIP64_EXTRA = 20


@dataclass(frozen=True)
class Described:
    """A tensor to be written; `dtype` is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the data."""
        return self.count * ITEM_BYTES[self.dtype]


def write_safetensors(path: Path, tensors: Sequence[Described], data: Iterator[bytes]) -> None:
    """Write a safetensors file; `data` are the tensors' little-endian bytes, one tensor after the other, in any cuts."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.bytes]
        }  # fmt: skip
        at += tensor.bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for part in _of(tensor, data):
                f.write(part)


def write_torch(path: Path, tensors: Sequence[Described], data: Iterator[bytes]) -> None:
    """Write a PyTorch file that `torch.load(weights_only=True)` reads; cuts in `data` must include the tensors' ends."""
    for tensor in tensors:
        if tensor.dtype not in _STORAGES:
            raise BadInput(f"Tensor {tensor.name!r} has type {tensor.dtype}, which .bin files lack; write safetensors.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), _state_dict(tensors))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), b"little")
        for number, tensor in enumerate(tensors):
            entry = zipfile.ZipInfo(f"archive/data/{number}")
            assert archive.fp is not None
            start = archive.fp.tell() + 30 + len(entry.filename) + _ZIP64_EXTRA + 4
            pad = -start % _ALIGN
            entry.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
            with archive.open(entry, "w", force_zip64=True) as f:
                for part in _of(tensor, data):
                    f.write(part)
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")


def _of(tensor: Described, data: Iterator[bytes]) -> Iterator[bytes]:
    left = tensor.bytes
    while left:
        part = next(data)
        left -= len(part)
        assert left >= 0
        yield part


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _state_dict(tensors: Sequence[Described]) -> bytes:
    """The pickle of {name: tensor}, with the opcodes that PyTorch writes itself; storage n holds tensor n alone."""
    empty = b"ccollections\nOrderedDict\n)R"
    out = [b"\x80\x02", empty]
    for number, tensor in enumerate(tensors):
        strides = [prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape))]
        storage = _tuple(
            _text("storage"), f"ctorch\n{_STORAGES[tensor.dtype]}\n".encode(), _text(str(number)), _text("cpu"),
            _number(tensor.count),
        ) + b"Q"  # fmt: skip
        arguments = _tuple(
            storage, _number(0), _tuple(*map(_number, tensor.shape)), _tuple(*map(_number, strides)), b"\x89", empty
        )
        out += [_text(tensor.name), b"ctorch._utils\n_rebuild_tensor_v2\n", arguments, b"R", b"s"]
    return b"".join(out) + b"."

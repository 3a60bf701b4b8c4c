"""Tensors of a training on the disk: one safetensors file per rank, readable on any other number of ranks.

Each rank writes the part of every tensor that it holds. The file's metadata says where a part lies in the whole
(`parts`: {key: [offset per dimension, whole shape]}), so that a reader takes the slices it needs from whichever files
hold them. No pickle: torch.distributed.checkpoint keeps its index as one, and a checkpoint may come from elsewhere.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pandallm.errors import BadInput

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Part:
    """What one rank holds of a tensor: `local` begins at `offset` of a whole of shape `whole`. `owner`: it writes it."""

    local: torch.Tensor
    offset: tuple[int, ...]
    whole: tuple[int, ...]
    owner: bool


def part_of(tensor: torch.Tensor, main: bool) -> Part:
    """This rank's part of a parameter or moment.

    A sharded tensor (DTensor) is written by the ranks at place 0 of the dimensions it is replicated over, a plain one
    by the `main` rank alone.
    """
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return Part(tensor, (0,) * tensor.ndim, tuple(tensor.shape), main)
    mesh, placements = tensor.device_mesh, tensor.placements
    _, offset = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    coordinate: list[int] = list(mesh.get_coordinate() or [])
    owner = all(at == 0 for at, placement in zip(coordinate, placements, strict=True) if placement.is_replicate())
    return Part(tensor.to_local(), tuple(offset), tuple(tensor.shape), owner)


def write_shard(path: Path, parts: dict[str, Part]) -> None:
    """Write host tensors as one safetensors file, bytes straight from their memory, and flush it to the disk."""
    header: dict[str, Any] = {
        "__metadata__": {"parts": json.dumps({k: [list(p.offset), list(p.whole)] for k, p in parts.items()})}
    }
    at = 0
    for key, part in parts.items():
        size = part.local.numel() * part.local.element_size()
        shape = list(part.local.shape)
        header[key] = {"dtype": _NAMES[part.local.dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for part in parts.values():
            if part.local.numel():
                f.write(part.local.reshape(-1).view(torch.uint8).numpy().data)
        f.flush()
        os.fsync(f.fileno())


class Shards:
    """Reads a folder's shard files as one set of whole tensors."""

    def __init__(self, files: Sequence[Path]) -> None:
        from safetensors import safe_open

        self._files = [safe_open(str(f), framework="pt") for f in files]
        self._parts: dict[str, list[tuple[int, list[int]]]] = {}
        self._whole: dict[str, tuple[int, ...]] = {}
        for number, file in enumerate(self._files):
            for key, (offset, whole) in json.loads(file.metadata()["parts"]).items():
                self._parts.setdefault(key, []).append((number, offset))
                self._whole[key] = tuple(whole)

    @property
    def names(self) -> list[str]:
        return list(self._whole)

    def shape(self, key: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._whole[key]

    def read(self, key: str, offset: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
        """The part of `shape` at `offset` of the whole tensor.

        Raises BadInput when the files do not hold every element of it.
        """
        out: torch.Tensor | None = None
        found = 0
        for number, begin in self._parts[key]:
            piece = self._files[number].get_slice(key)
            size = piece.get_shape()
            low = [max(a, b) for a, b in zip(offset, begin, strict=True)]
            high = [min(a + n, b + m) for a, n, b, m in zip(offset, shape, begin, size, strict=True)]
            if list(low) == list(begin) == list(offset) and list(size) == list(shape):
                return self._files[number].get_tensor(key)
            if any(h <= lo for lo, h in zip(low, high, strict=True)):
                continue
            block = piece[tuple(slice(lo - b, h - b) for lo, h, b in zip(low, high, begin, strict=True))]
            if out is None:
                out = torch.empty(tuple(shape), dtype=block.dtype)
            out[tuple(slice(lo - a, h - a) for lo, h, a in zip(low, high, offset, strict=True))] = block
            found += block.numel()
        wanted = torch.Size(shape).numel()
        if out is None and not wanted:
            number, _ = self._parts[key][0]
            return torch.empty(tuple(shape), dtype=self._files[number].get_slice(key)[0:0].dtype)
        if out is None or found != wanted:
            raise BadInput(f"The checkpoint holds {found} of the {wanted} numbers of {key} that this rank needs.")
        return out

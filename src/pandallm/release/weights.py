"""Hugging Face folders read as bytes: safetensors headers, tensors, the other files. Nothing is trusted, nothing is loaded whole."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.release.codec import CHUNK, ITEM_BYTES
from pandallm.release.torch_files import read_torch_file
from pandallm.store import digest_file, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: What the safetensors library itself allows.
MAX_HEADER_BYTES = 100_000_000
TORCH_INDEX = "pytorch_model.bin.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
#: Never shipped as they are: loading them may run code.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's little-endian bytes lie. `offset` counts from the start of the file; `dtype` is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    bytes: int

    @property
    def count(self) -> int:
        """Elements."""
        return self.bytes // ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class WeightFile:
    """A file of weights as safetensors: `header` is everything before the data, `tensors` are in the order of the data.

    Of a PyTorch file (`.bin`) the header is the one that it would have as safetensors.
    """

    path: Path
    header: bytes
    tensors: list[Tensor]

    @property
    def bytes(self) -> int:
        """Size as safetensors."""
        return len(self.header) + sum(t.bytes for t in self.tensors)

    def digest(self) -> str:
        """sha256 as safetensors."""
        if self.path.suffix == ".safetensors":
            return digest_file(self.path)
        hasher = hashlib.sha256(self.header)
        for tensor in self.tensors:
            for first, count in spans(0, tensor.count):
                hasher.update(read_elements(tensor, first, count))
        return hasher.hexdigest()


@dataclass(frozen=True)
class ModelFolder:
    """A model folder. Names are relative to `path`.

    weights: files of weights, by the name they have as safetensors. others: all other files. generated: files that
    go with weights read from `.bin` (their index). skipped: files that are not touched (pickles). adapter: whether it
    is a LoRA adapter.
    """

    path: Path
    weights: Mapping[str, WeightFile]
    tensors: Mapping[str, Tensor]
    others: Mapping[str, Path]
    generated: Mapping[str, bytes]
    skipped: list[str]
    adapter: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.bytes for t in self.tensors.values())

    def stamp(self) -> list[list[str | int]]:
        """Name, size and time of every file: what an interrupted run compares before it goes on."""
        files = sorted({w.path for w in self.weights.values()} | set(self.others.values()))
        stats = [(f, f.stat()) for f in files]
        return [[f.relative_to(self.path).as_posix(), s.st_size, s.st_mtime_ns] for f, s in stats]


def is_plain_name(name: str) -> bool:
    """Whether `name` is a file name without any folder, drive or trick in it."""
    return bool(name) and name not in (".", "..") and not any(c in '/\\:"' or ord(c) < 32 for c in name)


def is_safe_path(name: str) -> bool:
    """Whether `name` is a relative path with `/` that stays below its folder and is not hidden."""
    return all(is_plain_name(part) and not part.startswith(".") for part in name.split("/"))


def tensor_hasher(dtype: str, shape: tuple[int, ...]) -> Any:
    """sha256 begun with `DTYPE [d0,d1]` and a newline; the tensor's little-endian bytes follow."""
    return hashlib.sha256(f"{dtype} [{','.join(map(str, shape))}]\n".encode())


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({k for k, _ in pairs}) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def parse_header(header: bytes, path: Path, file_bytes: int) -> list[Tensor]:
    """Tensors of a safetensors file of `file_bytes` whose first bytes are `header` (length and JSON), in the order of the data.

    Holes, overlaps, unknown types and numbers that do not fit are refused with BadInput naming `path`.
    """

    def bad(why: str) -> BadInput:
        return BadInput(f"{path} is not a sound safetensors file ({why}); get it again.")

    try:
        entries = json.loads(header[8:].decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        raise bad("its header is not valid JSON") from None
    if not isinstance(entries, dict):
        raise bad("its header is not a table of tensors")
    entries.pop("__metadata__", None)
    tensors = []
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise bad(f"tensor {name!r} lacks dtype, shape or offsets") from None
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise bad(f"tensor {name!r} has type {dtype!r}, which is not supported")
        size = ITEM_BYTES[dtype]
        for n in (*shape, begin, end):
            if type(n) is not int or not 0 <= n < 1 << 63:
                raise bad(f"tensor {name!r} has a size or offset that is no natural number")
        for n in shape:
            size = min(size * n, 1 << 63)
        if end - begin != size:
            raise bad(f"tensor {name!r} has offsets that do not fit its shape")
        tensors.append(Tensor(name, dtype, shape, path, len(header) + begin, size))
    tensors.sort(key=lambda t: (t.offset, t.bytes))
    at = len(header)
    for tensor in tensors:
        if tensor.offset != at:
            raise bad(f"there is a hole or an overlap before tensor {tensor.name!r}")
        at += tensor.bytes
    if at != file_bytes:
        raise bad(f"it has {file_bytes:,} bytes and its header describes {at:,}")
    return tensors


def read_weight_file(path: Path) -> WeightFile:
    """Header and tensors of one safetensors file."""
    size = path.stat().st_size
    with open(path, "rb") as f:
        prefix = f.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise BadInput(f"{path} is not a sound safetensors file (its header's length cannot be); get it again.")
        header = prefix + f.read(length)
    return WeightFile(path, header, parse_header(header, path, size))


def _torch_name(name: str) -> str:
    """`pytorch_model-00001-of-00002.bin` -> `model-00001-of-00002.safetensors`."""
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def _torch_weight_file(path: Path) -> WeightFile:
    """A PyTorch file's tensors, and the header it would have as safetensors."""
    found = read_torch_file(path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    tensors, at = [], 0
    for name, (dtype, shape, offset, size) in found.items():
        tensors.append(Tensor(name, dtype, shape, path, offset, size))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return WeightFile(path, struct.pack("<Q", len(text)) + text, tensors)


def _indexed(folder: Path, files: Mapping[str, Path], index_name: str, suffix: str) -> list[str]:
    index = read_json(files[index_name])
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise BadInput(f"{files[index_name]} has no weight_map of tensor names to file names; get it again.")
    for name in places.values():
        if not is_plain_name(name) or not name.endswith(suffix):
            raise BadInput(f"{files[index_name]} names the shard {name!r}; only {suffix} files beside it are read.")
        if name not in files:
            raise BadInput(f"{folder} lacks the shard {name} that its index names; get it again.")
    return sorted(set(places.values()))


def _weight_names(folder: Path, files: Mapping[str, Path], adapter: bool) -> list[str]:
    """Names of the files that hold the weights: safetensors where there are any, else PyTorch's."""
    if adapter:
        names = [n for n in _ADAPTER if n in files]
        if not names:
            raise BadInput(f"{folder} has {ADAPTER_CONFIG} but no {_ADAPTER[0]}; get the adapter again.")
        return names[:1]
    if SINGLE in files:
        return [SINGLE]
    if INDEX in files:
        return _indexed(folder, files, INDEX, ".safetensors")
    if "pytorch_model.bin" in files:
        return ["pytorch_model.bin"]
    if TORCH_INDEX in files:
        return _indexed(folder, files, TORCH_INDEX, ".bin")
    raise BadInput(f"{folder} has no weights: neither {SINGLE} nor {INDEX} nor pytorch_model.bin is there.")


def open_model(folder: Path, role: str) -> ModelFolder:
    """Look at a Hugging Face folder; `role` is `Base` or `Target`, for messages.

    Weights are read from safetensors, in one file or sharded, or else from PyTorch's `.bin`, of which nothing is
    loaded: see `torch_files`. A target may be a LoRA adapter in PEFT's layout.
    """
    if not folder.is_dir():
        raise BadInput(f"{role} folder {folder} does not exist; give a Hugging Face model folder.")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and is_safe_path(name):
            files[name] = path
    adapter = "config.json" not in files and ADAPTER_CONFIG in files
    if adapter and role == "Base":
        raise BadInput(f"{role} {folder} is a LoRA adapter; give the model that it adapts.")
    if "config.json" not in files and not adapter:
        if "params.json" in files:
            raise BadInput(
                f"{role} {folder} is in Meta's original format (no config.json); convert it to Hugging Face format first."
            )
        raise BadInput(f"{role} {folder} has no config.json; give a Hugging Face model folder.")
    names = _weight_names(folder, files, adapter)
    weights = {
        n if n.endswith(".safetensors") else _torch_name(n): (
            read_weight_file(files[n]) if n.endswith(".safetensors") else _torch_weight_file(files[n])
        )
        for n in names
    }
    tensors: dict[str, Tensor] = {}
    for name, file in weights.items():
        for tensor in file.tensors:
            if tensor.name in tensors:
                raise BadInput(f"{folder} holds tensor {tensor.name!r} twice, the second time in {name}; keep one.")
            tensors[tensor.name] = tensor
    generated = {}
    if names[0].endswith(".bin") and len(names) > 1:
        index = {
            "metadata": {"total_size": sum(t.bytes for t in tensors.values())},
            "weight_map": {t.name: name for name, file in sorted(weights.items()) for t in file.tensors},
        }
        generated[INDEX] = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    skipped = [n for n in files if n.endswith(PICKLES) and n not in names]
    left_out = {*weights, *names, *skipped, *([TORCH_INDEX] if names[0].endswith(".bin") else [])}
    others = {n: p for n, p in files.items() if n not in left_out}
    return ModelFolder(folder, weights, tensors, others, generated, skipped, adapter)


def spans(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(first element, elements) of the chunks of the range `start`..`stop`."""
    for first in range(start, stop, CHUNK):
        yield first, min(CHUNK, stop - first)


def read_elements(tensor: Tensor, first: int, count: int) -> bytes:
    """Raw bytes of `count` elements from element `first` on."""
    size = ITEM_BYTES[tensor.dtype]
    with open(tensor.path, "rb", buffering=0) as f:
        f.seek(tensor.offset + first * size)
        data = f.read(count * size)
    if len(data) != count * size:
        raise BadInput(f"{tensor.path} became shorter while it was read; run again when nothing writes to it.")
    return data


def tensor_digest(tensor: Tensor) -> str:
    """sha256 over type, shape and bytes, hexadecimal: the same however a model is sharded."""
    hasher = tensor_hasher(tensor.dtype, tensor.shape)
    for first, count in spans(0, tensor.count):
        hasher.update(read_elements(tensor, first, count))
    return str(hasher.hexdigest())

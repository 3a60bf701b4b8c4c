"""PyTorch's `.bin` files read as bytes: where each tensor lies, found without torch and without running anything.

Since 1.6 PyTorch writes a zip archive: `data.pkl` describes the tensors, and each storage is an uncompressed entry. The
pickle is read by an unpickler that knows the handful of names a state dict needs and calls none of the code behind
them; anything else in it is refused, as with `torch.load(weights_only=True)`.
"""

import collections
import errno
import io
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pandallm.errors import BadInput

_MAX_PICKLE_BYTES = 200_000_000
#: Storage classes -> safetensors' names of types.
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

#: What reading a damaged archive or pickle raises, besides their own errors.
_DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, MemoryError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class _View:
    """A tensor: `elements` of a storage from `first` on."""

    storage: _Storage
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: Any, first: Any, shape: Any, stride: Any, *_: Any) -> _View:
    numbers = (first, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise pickle.UnpicklingError("a tensor is not described as PyTorch does it")
    return _View(storage, first, tuple(shape), tuple(stride))


def _same(tensor: Any, *_: Any) -> Any:
    return tensor


class _Unpickler(pickle.Unpickler):
    """Knows tensors and ordered dicts; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("torch._utils", "_rebuild_parameter"): _same,
            ("collections", "OrderedDict"): collections.OrderedDict,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, elements = pid
        if kind != "storage" or dtype not in _BYTES or type(key) is not str or type(elements) is not int:
            raise pickle.UnpicklingError("a storage is not described as PyTorch does it")
        return _Storage(key, dtype, elements)


def _entry_offset(archive: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    archive.seek(entry.header_offset)
    local = archive.read(30)
    if len(local) != 30 or local[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("an entry does not begin where it should")
    name, extra = struct.unpack_from("<HH", local, 26)
    return int(entry.header_offset + 30 + name + extra)


def read_torch_file(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """{tensor name: (safetensors type, shape, offset in the file, bytes)} of a state dict, in its order.

    BadInput where the file is no such archive, holds other things than tensors by name, or a tensor is not stored row by
    row.
    """

    def refuse(why: str) -> NoReturn:
        raise BadInput(f"{path} cannot be read without running code ({why}); save the model as safetensors instead.")

    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            entries = {e.filename: e for e in archive.infolist()}
            pickles = [n for n in entries if n.endswith("/data.pkl")]
            if len(pickles) != 1 or entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
                refuse("it is not PyTorch's zip format")
            root = pickles[0].removesuffix("data.pkl")
            order = entries.get(root + "byteorder")
            if order is not None and archive.read(order) != b"little":
                refuse("its numbers are big-endian")
            state = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
            if not isinstance(state, dict):
                refuse("it holds no table of tensors")
            tensors = {}
            for name, view in state.items():
                if not isinstance(name, str) or not isinstance(view, _View):
                    refuse(f"{name!r} is no tensor")
                entry = entries.get(f"{root}data/{view.storage.key}")
                if entry is None or entry.compress_type != zipfile.ZIP_STORED:
                    refuse(f"the data of {name!r} is missing or compressed")
                item, count = _BYTES[view.storage.dtype], 1
                for length, step in zip(reversed(view.shape), reversed(view.stride), strict=True):
                    if length > 1 and step != count and 0 not in view.shape:
                        refuse(f"{name!r} is not stored row by row")
                    count = min(count * length, 1 << 62)
                start = _entry_offset(raw, entry) + view.first * item
                if (view.first + count) * item > entry.file_size or start + count * item > size:
                    refuse(f"the data of {name!r} is shorter than its shape")
                tensors[name] = (view.storage.dtype, view.shape, start, count * item)
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, NotImplementedError) as e:
        refuse(str(e) or "it ends too early")
    except OSError as e:
        if e.errno != errno.EINVAL:  # a place before the file's start
            raise
        refuse("it is damaged")
    except _DAMAGE:
        refuse("it is damaged")
    if not tensors:
        refuse("it holds no tensors")
    return tensors

"""The header of a GGUF file, versions 2 and 3 (ggml's docs/gguf.md): its settings and the names of its tensors; no weight is read."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

#: Format of a value by its type's number; 8 is a string, 9 a list.
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _LIST = 8, 9
#: A longer text or more dimensions are damage.
_MOST_BYTES, _MOST_DIMENSIONS = 1 << 26, 8


def read_header(file: Path) -> tuple[dict[str, Any], set[str]]:
    """Settings by name, a list as `range` of its length alone, and the names of the tensors.

    Raises ValueError for a file that is no such header, OSError where it cannot be read.
    """
    with open(file, "rb") as f:
        if f.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := _number(f, "<I")) not in (2, 3):
            raise ValueError(f"version {version}")
        tensors, settings = _number(f, "<Q"), _number(f, "<Q")
        found = {_text(f): _value(f, _number(f, "<I")) for _ in range(settings)}
        names = set()
        for _ in range(tensors):
            names.add(_text(f))
            dimensions = _number(f, "<I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError("it is damaged")
            _bytes(f, 8 * dimensions + 12)
    return found, names


def _bytes(f: BinaryIO, count: int) -> bytes:
    if count > _MOST_BYTES:
        raise ValueError("it is damaged")
    data = f.read(count)
    if len(data) < count:
        raise ValueError("it ends early")
    return data


def _number(f: BinaryIO, form: str) -> Any:
    return struct.unpack(form, _bytes(f, struct.calcsize(form)))[0]


def _text(f: BinaryIO) -> str:
    return _bytes(f, _number(f, "<Q")).decode("utf-8", errors="replace")


def _value(f: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(f)
    if kind == _LIST:
        inside, count = _number(f, "<I"), _number(f, "<Q")
        if inside in _NUMBERS:
            _bytes(f, struct.calcsize(_NUMBERS[inside]) * count)
        else:
            for _ in range(count):
                _value(f, inside)
        return range(count)
    if kind not in _NUMBERS:
        raise ValueError(f"a value of type {kind}")
    return _number(f, _NUMBERS[kind])

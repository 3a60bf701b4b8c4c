"""Files of records -> (place, record): JSON, JSON lines, CSV, Parquet; .gz and .zst looked through."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput

Record = dict[str, Any]


def read_values(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of one file, by the ending of its name; anything but .csv and .parquet is read as JSON.

    A place is `FILE:LINE` (of the record's first line), or `FILE: record N` for arrays and Parquet. Raises BadInput
    for a file that is missing, torn, not UTF-8 or not of its format.
    """
    kind = next((s for s in reversed(path.suffixes) if s.lower() not in (".gz", ".zst")), "").lower()
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".csv":
        return _csv(path, text_of(path))
    return _json(path, text_of(path))


def text_of(path: Path) -> str:
    """The text of a file, decompressed, without a byte order mark."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        elif path.suffix == ".zst":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as stream:
                data = stream.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 ({e.reason} at byte {e.start}).") from None
    except Exception as e:  # gzip and zstandard raise classes of their own
        raise BadInput(f"{path} cannot be read ({e}).") from None


def _json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    start = text.lstrip()[:1]
    if start == "[":
        array = _whole(text)
        # C3's lines may be arrays themselves: [[turns], [questions], id].
        if isinstance(array, list) and not (len(array) == 3 and isinstance(array[2], str)):
            for number, value in enumerate(array, 1):
                yield f"{path}: record {number}", value
            return
    elif start == "{" and path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json"):
        value = _whole(text)
        if isinstance(value, dict):
            # One object over several lines: GAOKAO-Bench keeps its list under "example".
            inner = value.get("example")
            if isinstance(inner, list):
                for number, record in enumerate(inner, 1):
                    yield f"{path}: record {number}", record
            else:
                yield f"{path}:1", value
            return
    # Not splitlines(): U+2028 and U+0085 may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as e:
                raise BadInput(f"{path}:{number}: not valid JSON ({getattr(e, 'msg', e)}).") from None


def _whole(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None  # not one value: perhaps a value a line


def _csv(path: Path, text: str) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(1 << 26)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = next(reader, None)
        if not header:
            raise BadInput(f"{path} is empty; its first line must name the columns.")
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise BadInput(f"{path}:1: the column {repeated!r} is named twice.")
        line = reader.line_num + 1
        for row in reader:
            if row:
                if len(row) != len(header):
                    raise BadInput(f"{path}:{line}: {len(row)} fields, but the first line names {len(header)} columns.")
                yield f"{path}:{line}", dict(zip(header, row))
            line = reader.line_num + 1
    except csv.Error as e:
        raise BadInput(f"{path}:{line}: not valid CSV ({e}).") from None


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    if not path.is_file():
        raise BadInput(f"{path} does not exist.")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(4096):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}: record {number}", record
    except (pyarrow.ArrowException, OSError) as e:
        raise BadInput(f"{path} cannot be read as Parquet ({' '.join(str(e).split())}).") from None

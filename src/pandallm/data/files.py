"""Files to raw records: patterns, units of work, reading a unit, parsing a record."""

import glob
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import orjson

from pandallm.data.archives import ARCHIVES, read_archive
from pandallm.data.lines import json_layout, read_blocks, read_json, read_lines
from pandallm.data.raw import RawRecord, Unit
from pandallm.data.streams import COMPRESSIONS, convert, not_utf8, open_bytes, other_encoding, read_rest
from pandallm.data.tables import TABLES, count_rows, plan_table, read_table
from pandallm.errors import BadInput

JSON = (".jsonl", ".json")
FORMATS = (*JSON, ".txt", *TABLES, *ARCHIVES)

#: Format of a unit of text whose documents are separated by blank lines (`plan_units(blocks=True)`).
BLOCKS = ".txt blocks"

#: About so much is read per unit.
TARGET_BYTES = 32 << 20

__all__ = [
    "FORMATS",
    "RawRecord",
    "Unit",
    "UnitReader",
    "count_records",
    "file_format",
    "parse_record",
    "plan_units",
    "read_raw",
    "read_records",
    "read_unit",
    "resolve_files",
]


def file_format(path: Path) -> str | None:
    """One of FORMATS (compression looked through), or None where the name says none of them."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".tgz":
        return ".tar"
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    if compressed:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    return kind if kind in FORMATS and not (compressed and kind in (*TABLES, ".zip")) else None


def resolve_files(patterns: str | Sequence[str], where: str) -> list[Path]:
    """The files that absolute patterns name: a file, a directory (searched below) or a glob; hidden names are left out.

    Sorted, each file once. Raises BadInput naming `where` (such as `corpora.chinese.sources.wiki.files`) when a
    pattern matches nothing readable.
    """
    found: set[Path] = set()
    readable = f"{', '.join(FORMATS)}; also with {' or '.join(COMPRESSIONS)}"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern)
        if path.is_file():
            if file_format(path) is None:
                raise BadInput(f"{where}: {pattern} is of no known format; give files named {readable}.")
            found.add(path)
            continue
        if path.is_dir():
            candidates = [
                p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)
            ]
        else:
            candidates = [Path(p) for p in glob.glob(pattern, recursive=True)]
        matches = [p for p in candidates if p.is_file() and file_format(p) is not None]
        if not matches:
            raise BadInput(f"{where}: {pattern} matches no file; check the path (files are named {readable}).")
        found.update(matches)
    if not found:
        raise BadInput(f"{where} names no file; give a file, a directory or a glob.")
    return sorted(found)


def _known_format(path: Path) -> str:
    kind = file_format(path)
    if kind is None:
        raise BadInput(f"{path} is of no known format; give {', '.join(FORMATS)}, also with .gz or .zst.")
    return kind


def plan_units(path: Path, target_bytes: int = TARGET_BYTES, *, blocks: bool = False) -> list[Unit]:
    """The units of a file, in order, of about `target_bytes` each; they depend on the file alone.

    Plain JSON lines and text are cut by byte offsets, Parquet by row groups, Arrow by batches. A compressed file, an archive,
    a JSON array and JSON over several lines are one unit. An empty file has none. blocks: documents of `.txt` files are
    separated by blank lines instead of being one a line (an adapter's `blocks`). Raises BadInput for a file that does not exist, cannot be opened, is of no
    known format, and for a damaged Parquet or Arrow file.
    """
    kind = _known_format(path)
    try:
        if kind in TABLES:
            path.stat()
            return plan_table(path, kind, target_bytes)
        size = path.stat().st_size
        if blocks and kind == ".txt":
            kind = BLOCKS
        whole = [Unit(path, kind, 0, -1, size)]
        if path.suffix.lower() in (*COMPRESSIONS, ".tgz") or kind in ARCHIVES:
            return whole
        if not size:
            return []
        with open_bytes(path) as stream:
            if kind in JSON and json_layout(stream, kind) != "lines":
                return whole
    except OSError as e:
        raise _cannot_open(path, e) from None
    pieces = max(1, round(size / target_bytes))
    cuts = [size * i // pieces for i in range(pieces + 1)]
    return [Unit(path, kind, a, b, b - a) for a, b in pairwise(cuts)]


def _cannot_open(path: Path, error: OSError) -> BadInput:
    if isinstance(error, FileNotFoundError):
        return BadInput(f"{path} does not exist.")
    return BadInput(f"{path} cannot be read ({error.strerror or error}); check the file and its permissions.")


class UnitReader:
    """Iterates over the raw records of a unit. `lines`, once it is through: lines (rows) of the unit, blank ones too."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.lines = 0
        self._records = self._read()

    def __iter__(self) -> Iterator[RawRecord]:
        return self._records

    def _passed(self, lines: int) -> None:
        self.lines = lines

    def _read(self) -> Iterator[RawRecord]:
        unit = self.unit
        if unit.format in TABLES:
            yield from read_table(unit, self._passed)
            return
        try:
            if unit.format in ARCHIVES:
                yield from read_archive(unit.path, unit.format, self._passed)
                return
            stream = open_bytes(unit.path)
        except OSError as e:
            raise _cannot_open(unit.path, e) from None
        with stream:
            if error := other_encoding(stream.read(4)):
                # There are no lines in such bytes; the whole unit is one record.
                size = 4 + read_rest(stream) if unit.stop < 0 else unit.stop - unit.start
                self.lines = 1
                yield RawRecord(1, b"", error, skipped=size)
                return
        with open_bytes(unit.path) as stream:
            if unit.format == BLOCKS:
                yield from read_blocks(stream, unit.start, unit.stop, self._passed)
            elif unit.format in JSON and unit.start == 0 and json_layout(stream, unit.format) != "lines":
                yield from read_json(stream, unit.format, self._passed)
            else:
                yield from read_lines(stream, unit.start, unit.stop, self._passed)


def read_unit(unit: Unit) -> UnitReader:
    """The records of a unit in order; blank lines are no records. Lines are numbered from 1 within the unit.

    What cannot be read (a damaged gz or zst file from there on, a line above 64 MB, a file in UTF-16, a JSON array from where
    it breaks) is one record with `error`; what stands before it is given. Raises BadInput where the file cannot be opened.
    """
    return UnitReader(unit)


def count_records(unit: Unit) -> int:
    """How many records `read_unit` gives, without parsing them; for tables from their metadata."""
    return count_rows(unit) if unit.format in TABLES else sum(1 for _ in read_unit(unit))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def parse_record(raw: RawRecord, kind: str) -> dict[str, Any] | str:
    """The record, or what is wrong with it. `kind` is the file's format; a line of `.txt` becomes `{"text": line}`.

    Refused: bytes that are not UTF-8, NaN and infinities, half a surrogate pair, anything but a JSON object.
    """
    if raw.error is not None:
        return raw.error
    if raw.record is not None:
        return raw.record
    try:
        if kind in (".txt", BLOCKS):
            return {"text": raw.raw.decode()}
        record = orjson.loads(raw.raw)
    except ValueError as e:  # also UnicodeDecodeError and orjson.JSONDecodeError
        return _why_not(raw.raw, e)
    if not isinstance(record, dict):
        return f"not a JSON object but {type(record).__name__}"
    return record


def _why_not(raw: bytes, refusal: ValueError) -> str:
    """Why these bytes are no record: the standard library's words where it refuses them too."""
    try:
        json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as e:
        return not_utf8(raw, e.start)
    except json.JSONDecodeError as e:
        if not raw.strip(b"\0 \t\r"):
            return "nothing but zero bytes: the file was not written whole; fetch or write it again"
        return convert("UTF-16", sure=False) if b"\0" in raw else f"not valid JSON ({e.msg}, column {e.colno})"
    except (ValueError, RecursionError) as e:
        return f"not valid JSON ({e})"
    if isinstance(refusal, json.JSONDecodeError):
        return f"not valid JSON ({refusal.msg}, column {refusal.colno})"
    return f"not valid JSON ({refusal})"


def read_raw(path: Path) -> Iterator[RawRecord]:
    """The records of a whole file, in order, as `read_unit` gives them; lines are numbered through the file."""
    kind = _known_format(path)
    if kind not in TABLES:
        yield from read_unit(Unit(path, kind, 0, -1, 0))
        return
    line = 0
    for unit in plan_units(path):
        reader = read_unit(unit)
        for raw in reader:
            yield raw._replace(line=line + raw.line)
        line += reader.lines


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """`(line number, record)` for each record of a file, or `(line number, error text)` for a broken one.

    Raises BadInput where the file cannot be opened or is of no known format.
    """
    kind = _known_format(path)
    for raw in read_raw(path):
        yield raw.line, parse_record(raw, kind)

"""Files to raw records: patterns, compression, JSON lines, JSON arrays, plain text."""

import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import zstandard

from pandallm.errors import BadInput

FORMATS = (".jsonl", ".json", ".txt")
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as it stands in its file: first line (1-based) and its bytes, line end left out.

    `error` is set where the file stops being readable as records (a broken JSON array): `raw` is then the rest.
    """

    line: int
    raw: bytes
    error: str | None = None


def file_format(path: Path) -> str | None:
    """`.jsonl`, `.json` or `.txt` (compression looked through), or None where the name says neither."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def resolve_files(patterns: str | Sequence[str], where: str) -> list[Path]:
    """The files that absolute patterns name: a file, a directory (searched below, hidden names left out) or a glob.

    Sorted, each file once. Raises BadInput naming `where` (such as `corpora.chinese.sources.wiki.files`) when a
    pattern matches nothing readable.
    """
    found: set[Path] = set()
    readable = f"{', '.join(FORMATS)}, also with {' or '.join(COMPRESSIONS)}"
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


def _open(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(path, "rb"), 1 << 20)
    if suffix == ".zst":
        # Files written in parts hold several frames, one after the other.
        file = open(path, "rb")  # noqa: SIM115 (closed with the reader)
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
        return io.BufferedReader(reader, 1 << 20)
    return open(path, "rb", buffering=1 << 20)


def read_raw(path: Path) -> Iterator[RawRecord]:
    """The records of a file as bytes; blank lines are no records. Lines are streamed, a JSON array is read whole.

    Raises BadInput naming the file when it cannot be opened or its compression is damaged.
    """
    try:
        with _open(path) as stream:
            if file_format(path) == ".json" and _starts_array(stream):
                yield from _array(stream.read())
                return
            for number, line in enumerate(stream, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                raw = line.rstrip(b"\r\n")
                if raw.strip():
                    yield RawRecord(number, raw)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as e:
        raise BadInput(f"{path} is damaged ({e}); fetch or compress it again.") from None


def _starts_array(stream: IO[bytes]) -> bool:
    assert isinstance(stream, io.BufferedReader)
    return stream.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array(data: bytes) -> Iterator[RawRecord]:
    """The elements of a top-level JSON array, each as the bytes it stands in."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        yield RawRecord(data[: e.start].count(b"\n") + 1, data, f"the JSON array is not UTF-8 (byte {e.start})")
        return
    decoder = json.JSONDecoder()
    position, line, counted = text.index("[") + 1, 1, 0
    first = True
    while True:
        position = _skip_blanks(text, position)
        if text[position : position + 1] == "]" or (position == len(text) and first):
            return
        if not first:
            if text[position : position + 1] != ",":
                break
            position = _skip_blanks(text, position + 1)
        first = False
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        line += text.count("\n", counted, position)
        counted = position
        yield RawRecord(line, text[position:end].encode())
        position = end
    line += text.count("\n", counted, position)
    yield RawRecord(line, text[position:].encode(), "the JSON array is broken here; the rest of the file is left out")


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def parse_record(raw: RawRecord, kind: str) -> dict[str, Any] | str:
    """The record, or what is wrong with it. `kind` is the file's format; a line of `.txt` becomes `{"text": line}`."""
    if raw.error:
        return raw.error
    try:
        text = raw.raw.decode()
    except UnicodeDecodeError as e:
        return f"not valid UTF-8 (byte {e.start + 1} of the line)"
    if kind == ".txt":
        return {"text": text}
    try:
        record = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as e:
        return f"not valid JSON ({e.msg}, column {e.colno})"
    except (ValueError, RecursionError) as e:
        return f"not valid JSON ({e})"
    if not isinstance(record, dict):
        return f"not a JSON object but {type(record).__name__}"
    return record


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """`(line number, record)` for each record of a file, or `(line number, error text)` for a broken one.

    Raises BadInput as `read_raw` does, and for a file name of no known format.
    """
    kind = file_format(path)
    if kind is None:
        raise BadInput(f"{path} is of no known format; give .jsonl, .json or .txt, also with .gz or .zst.")
    for raw in read_raw(path):
        yield raw.line, parse_record(raw, kind)

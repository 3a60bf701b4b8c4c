"""Members of tar and zip archives as raw records; nothing is unpacked to disk."""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pandallm.data.lines import read_json, read_lines
from pandallm.data.raw import RawRecord
from pandallm.data.streams import damage_of, open_bytes

ARCHIVES = (".tar", ".zip")

_MEMBERS = (".jsonl", ".json", ".txt")


def read_archive(path: Path, archive: str, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """The records of all `.jsonl`, `.json` and `.txt` members, in the archive's order; lines are numbered through all of them.

    Where the archive is damaged, what follows is one error record. Members in folders or with names that begin with a dot
    are left out.
    """
    before = 0

    def ended(lines: int) -> None:
        nonlocal before
        before += lines

    try:
        for name, stream in _tar(path) if archive == ".tar" else _zip(path):
            start = before
            kind = PurePosixPath(name).suffix.lower()
            text = kind == ".txt"
            for raw in read_lines(stream, 0, -1, ended) if text else read_json(stream, kind, ended):
                record = None
                if text and raw.error is None:
                    try:
                        record = {"text": raw.raw.decode()}
                    except UnicodeDecodeError:
                        raw = raw._replace(error="not valid UTF-8")
                error = f"{name}: {raw.error}" if raw.error else None
                yield raw._replace(line=start + raw.line, record=record, error=error)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        told = str(e).splitlines()[0] if str(e) else type(e).__name__
        yield RawRecord(before + 1, b"", f"the archive is damaged here ({told}): what follows is lost; fetch it again")
    finally:
        passed(before)


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in _MEMBERS and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with open_bytes(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isfile() and _wanted(member.name.removeprefix("./")):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name, _buffered(content)
        if damage := damage_of(stream):
            raise tarfile.ReadError(damage)


def _buffered(content: Any) -> IO[bytes]:
    """A reader with `peek`, whatever the archive's module gives."""
    return io.BufferedReader(content)


def _zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and _wanted(member.filename):
                with archive.open(member) as content:
                    yield member.filename, _buffered(content)

"""Digests of input files, remembered: a second run does not read everything again."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pandallm.errors import BadInput
from pandallm.store.files import digest_file, read_json, write_json

#: A file written to within so many nanoseconds before its digest was taken may change again under the same time stamp.
_SETTLED = 2_000_000_000

Stat = tuple[int, int, int]  # size, time of change (ns), inode


class FileDigests:
    """sha256 of files by path, size, time of change and inode, kept in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, files: Sequence[Path]) -> list[str]:
        """The digest of each file; those that are not known (or have changed) are read. Raises OSError as reading does."""
        known = self._read()
        digests: list[str] = []
        new: dict[str, list[int | str]] = {}
        for file in files:
            name, before = str(file.absolute()), _stat(file)
            entry = known.get(name)
            if entry and tuple(entry[:3]) == before:
                digests.append(str(entry[3]))
                continue
            now = time.time_ns()
            digest = digest_file(file)
            digests.append(digest)
            if _stat(file) == before and before[1] < now - _SETTLED:
                new[name] = [*before, digest]
        if new:
            # Another process may have added its own meanwhile.
            write_json(self._path, {**self._read(), **new})
        return digests

    def unknown(self, files: Sequence[Path]) -> list[Path]:
        """Those files that `of` would have to read. Raises OSError for a file that is not there."""
        known = self._read()
        entries = [(file, known.get(str(file.absolute()))) for file in files]
        return [file for file, entry in entries if not entry or tuple(entry[:3]) != _stat(file)]

    def _read(self) -> dict[str, list[int | str]]:
        try:
            return dict(read_json(self._path))
        except (BadInput, TypeError, ValueError):  # absent or damaged: only time is lost
            return {}


def _stat(file: Path) -> Stat:
    facts = os.stat(file)
    return facts.st_size, facts.st_mtime_ns, facts.st_ino

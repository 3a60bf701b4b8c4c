"""Append-only journal of scored questions, so that a killed evaluation goes on where it was."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pandallm.store import canonical_json


class Journal:
    """Lines of JSON below a first line that names what they belong to. `rows` holds what earlier attempts wrote.

    A journal with another `key` (other weights, prompt, dtype, questions) is thrown away; a torn last line too.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.rows: dict[Any, Any] = {}
        valid = self._load()
        path.parent.mkdir(parents=True, exist_ok=True)
        if valid:
            with open(path, "r+b") as f:
                f.truncate(valid)
        self._file: IO[str] = open(path, "a" if valid else "w", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        if not valid:
            self._file.write(canonical_json({"key": key}) + "\n")

    def _load(self) -> int:
        """Reads the rows; returns how many bytes of the file are good."""
        if not self._path.is_file():
            return 0
        good = 0
        with open(self._path, "rb") as f:
            for number, line in enumerate(f):
                try:
                    value = json.loads(line)
                except (json.JSONDecodeError, UnicodeDecodeError):
                    break
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    if value != {"key": self._key}:
                        return 0
                else:
                    self.rows.setdefault(value["id"], value["value"])
                good += len(line)
        return good

    def add(self, values: Iterable[tuple[Any, Any]]) -> None:
        """Append (id, value) pairs and put them on disk."""
        for identity, value in values:
            if identity not in self.rows:
                self.rows[identity] = value
                self._file.write(canonical_json({"id": identity, "value": value}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

"""What is read: a unit of work (a file, or a part of one) and the raw records in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

#: A line, or an element of a JSON array, above this is not held in memory: it becomes one record with an error.
LINE_LIMIT = 64 << 20


class RawRecord(NamedTuple):
    """One record as it stands in its file.

    line: 1-based, within the unit (rows of Parquet and Arrow, else lines). raw: its bytes, line end left out; of a table,
    the row as JSON. error: why there is no record here; `raw` is then what could be read of it. record: the record where
    the reader has it already (tables). skipped: bytes that were read but are not held in `raw`.
    """

    line: int
    raw: bytes
    error: str | None = None
    record: dict[str, Any] | None = None
    skipped: int = 0

    @property
    def size(self) -> int:
        """Bytes that this record took of what was read."""
        return len(self.raw) + self.skipped


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a file that can be read alone.

    format: as `file_format` names it. start, stop: byte offsets for lines of plain files, row groups for `.parquet`, rows for
    `.arrow`; 0 and -1 for a whole file. The lines that begin at or after `start` and before `stop` belong to the unit.
    bytes: about how much there is to read (of a compressed file, its size on disk).
    """

    path: Path
    format: str
    start: int
    stop: int
    bytes: int

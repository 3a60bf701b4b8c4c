"""A corpus under way: its files planned as shards, and the folder that holds what is known of each shard.

Layout of the folder (`.shards` in the corpus): `plan.json` (what the rest belongs to), `00012/` (what cleaning made of
shard 12; renamed into place when it is whole), `decisions/` (what becomes of each row, all shards), `00012.hits.jsonl`
(overlaps with benchmarks), `00012.done.json` (the shard's parts of the corpus are written).
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pandallm.data.adapters import ADAPTERS
from pandallm.data.files import Unit, plan_units, read_unit
from pandallm.data.spec import CorpusSpec
from pandallm.store import digest_json, read_json, write_json
from pandallm.store.files import fsync_folder

#: About so much input is one shard. What is in which shard decides the files of the corpus: part of its format.
SHARD_BYTES = 32 << 20
#: A shard of very many small files would be no longer done in a moment.
SHARD_UNITS = 2_000

FACTS = "facts.json"
HIDDEN = ".shards"


@dataclass(frozen=True, slots=True)
class Piece:
    """A unit of a shard. file: number of its file among the source's. limit: how many records are read at most."""

    file: int
    unit: Unit
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive pieces of one source."""

    number: int
    source: str
    pieces: tuple[Piece, ...]

    @property
    def bytes(self) -> int:
        """About how much there is to read."""
        return sum(p.unit.bytes for p in self.pieces)

    @property
    def name(self) -> str:
        """What its folder and files are called."""
        return f"{self.number:05d}"


def plan_shards(
    spec: CorpusSpec, files: Mapping[str, Sequence[Path]], shard_bytes: int = SHARD_BYTES
) -> tuple[Shard, ...]:
    """The shards of a corpus, in source and file order; they depend on the files and settings alone.

    Raises BadInput for a file that cannot be opened.
    """
    shards: list[Shard] = []
    for source, s in spec.sources.items():
        pieces: list[Piece] = []
        size = 0
        blocks = ADAPTERS[s.adapter].blocks
        for piece in _pieces(files[source], s.max_records, shard_bytes, blocks):
            if pieces and (size + piece.unit.bytes > shard_bytes or len(pieces) == SHARD_UNITS):
                shards.append(Shard(len(shards), source, tuple(pieces)))
                pieces, size = [], 0
            pieces.append(piece)
            size += piece.unit.bytes
        if pieces:
            shards.append(Shard(len(shards), source, tuple(pieces)))
    return tuple(shards)


def _pieces(files: Sequence[Path], max_records: int | None, shard_bytes: int, blocks: bool) -> Iterator[Piece]:
    units = [(n, unit) for n, path in enumerate(files) for unit in plan_units(path, shard_bytes, blocks=blocks)]
    left = max_records
    for number, unit in units:
        yield Piece(number, unit, left)
        if left is not None and unit is not units[-1][1]:
            # Counted here, so that shards need not wait for each other.
            left -= sum(1 for _ in islice(read_unit(unit), left))
            if not left:
                return


class ShardStore:
    """The folder of shards under way. What belongs to another plan (files or settings have changed) is cleared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, identity: Any) -> bool:
        """Make ready for the plan that `identity` describes (JSON): keep what is committed of it, clear anything else.

        Returns whether something may have been kept.
        """
        plan, digest = self.folder / "plan.json", digest_json(identity)
        kept = plan.is_file() and read_json(plan) == {"digest": digest}
        if not kept:
            self.clear()
            self.folder.mkdir(parents=True)
            write_json(plan, {"digest": digest})
        for left in self.folder.glob(".*"):  # of a killed attempt
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
        return kept

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """Everything is written: only what it was made of is remembered, so that the same call finds it done."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "plan.json":
                path.unlink()

    def shard(self, shard: Shard) -> Path:
        """The folder of a cleaned shard."""
        return self.folder / shard.name

    def is_cleaned(self, shard: Shard) -> bool:
        """Whether the shard is cleaned and committed."""
        return (self.shard(shard) / FACTS).is_file()

    def facts(self, shard: Shard) -> dict[str, Any]:
        """What cleaning counted."""
        return dict(read_json(self.shard(shard) / FACTS))

    def hits(self, shard: Shard) -> Path:
        """Where the written shard's overlaps with benchmarks stand: JSON lines of id, fate, overlaps; absent where none."""
        return self.folder / f"{shard.name}.hits.jsonl"

    @property
    def decisions(self) -> Path:
        """The folder of what becomes of each row."""
        return self.folder / "decisions"

    def written(self, shard: Shard) -> dict[str, Any] | None:
        """What was counted when the shard's parts were written; None where they are not."""
        path = self.folder / f"{shard.name}.done.json"
        return dict(read_json(path)) if path.is_file() else None

    def mark_written(self, shard: Shard, facts: Mapping[str, Any]) -> None:
        """The shard's parts of the corpus are in place."""
        write_json(self.folder / f"{shard.name}.done.json", facts)

    @contextmanager
    def commit(self, target: Path) -> Iterator[Path]:
        """A fresh folder to write in, which becomes `target` when the block ends well: whole or not at all."""
        part = self.folder / f".{target.name}.{uuid.uuid4().hex[:12]}"
        part.mkdir()
        try:
            yield part
            for file in part.iterdir():
                sync(file)
            try:
                os.replace(part, target)
            except OSError:
                if not target.is_dir():  # else another attempt at the same shard was quicker; it made the same
                    raise
            fsync_folder(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def sync(file: Path) -> None:
    """Make a file's bytes durable."""
    with open(file, "rb+") as f:
        os.fsync(f.fileno())


def place(part: Path, target: Path) -> None:
    """Rename a finished file to `target`, on the same file system: it is there whole or not at all."""
    sync(part)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)

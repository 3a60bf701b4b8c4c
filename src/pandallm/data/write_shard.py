"""The second map: a cleaned shard and what was decided of its rows -> its Parquet files in the corpus."""

import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pandallm.data.clean_shard import ID_BYTES, PREVIEW_CHARS, turns_type
from pandallm.data.contamination import Fate
from pandallm.data.decide import CONTAMINATED, DUPLICATE, HELD_OUT, KEPT, example_id
from pandallm.data.shards import Shard, ShardStore, place

if TYPE_CHECKING:
    import pyarrow as pa

#: Row groups end at so many rows or bytes in memory.
GROUP_ROWS = 8_192
GROUP_BYTES = 16 << 20

_HIT_FATES: dict[int, Fate] = {KEPT: "kept", HELD_OUT: "held_out", DUPLICATE: "duplicate", CONTAMINATED: "dropped"}
_FATES = {KEPT: "kept", HELD_OUT: "held_out", DUPLICATE: "duplicate", CONTAMINATED: "contaminated"}


@dataclass(frozen=True)
class Writer:
    """What every worker holds: the folder of the shards under way and the corpus's."""

    store: ShardStore
    out: Path


@dataclass(frozen=True)
class WriteTask:
    """A shard. files, lines: of each of its pieces, the file's name and how many lines of the file stand before it."""

    shard: Shard
    files: tuple[str, ...]
    lines: tuple[int, ...]


def example_schema() -> "pa.Schema":
    """Columns of examples and held_out."""
    import pyarrow as pa

    texts = [(n, pa.string()) for n in ("id", "source", "language")]
    numbers = [("utf8_bytes", pa.int64()), ("record_bytes", pa.int64()), ("quality", pa.float32())]
    return pa.schema([*texts, ("turns", turns_type()), *numbers])


def dropped_schema() -> "pa.Schema":
    """Columns of dropped."""
    import pyarrow as pa

    first = [(n, pa.string()) for n in ("id", "source", "reason", "file")]
    last = [("preview", pa.string()), ("detail", pa.string()), ("record_bytes", pa.int64())]
    return pa.schema([*first, ("line", pa.int64()), *last])


def write_shard(writer: Writer, task: WriteTask) -> int:
    """Write the shard's parts and say in the store what was counted; its rows under way are then deleted.

    Returns the bytes planned for the shard. What is done already is not done again.
    """
    if writer.store.written(task.shard) is None:
        writer.store.mark_written(task.shard, _write(writer, task))
    (writer.store.shard(task.shard) / "passed.arrow").unlink(missing_ok=True)
    return task.shard.bytes


def _write(writer: Writer, task: WriteTask) -> dict[str, Any]:
    name, folder = task.shard.name, writer.store.shard(task.shard)
    with np.load(writer.store.decisions / f"{name}.npz") as decisions:
        plan = _Plan(folder, **decisions)
    counts: dict[str, list[int]] = {}
    hits: list[bytes] = []
    part = writer.store.folder / f".{name}.parts.{uuid.uuid4().hex[:12]}"
    part.mkdir()
    try:
        parts = {
            "examples": _Part(part / "examples", example_schema()),
            "held_out": _Part(part / "held_out", example_schema()),
            "dropped": _Part(part / "dropped", dropped_schema()),
        }
        for passed, dropped, rows in _batches(folder):
            ids = plan.ids_of(rows)
            fates = plan.fates[plan.taken : plan.taken + passed.num_rows]
            for fate, into in ((KEPT, "examples"), (HELD_OUT, "held_out")):
                if (chosen := fates == fate).any():
                    batch = passed if chosen.all() else passed.filter(chosen)
                    parts[into].write(_examples(batch, ids, rows, task.shard.source))
                    _count(counts, _FATES[fate], batch["record_bytes"].to_numpy())
            gone = np.flatnonzero((fates == DUPLICATE) | (fates == CONTAMINATED))
            if dropped.num_rows or len(gone):
                lost = _lost(dropped, passed.take(gone), fates[gone], gone + plan.taken, plan)
                parts["dropped"].write(_dropped(lost, ids, rows, task))
                for reason, size in zip(lost["reason"], lost["record_bytes"], strict=True):
                    entry = counts.setdefault(reason, [0, 0])
                    entry[0] += 1
                    entry[1] += size
            hits += plan.hits_of(passed, ids, rows)
            plan.taken += passed.num_rows
        for into, file in parts.items():
            if file.close():
                place(file.path, writer.out / into / f"{name}.parquet")
        if hits:
            (part / "hits").write_bytes(b"".join(hits))
            place(part / "hits", writer.store.hits(task.shard))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"counts": counts}


def _count(counts: dict[str, list[int]], fate: str, sizes: NDArray[np.int64]) -> None:
    entry = counts.setdefault(fate, [0, 0])
    entry[0] += len(sizes)
    entry[1] += int(sizes.sum())


class _Plan:
    """What was decided of a shard's rows (see decide.py). taken: passed rows that have been written."""

    def __init__(
        self,
        folder: Path,
        fates: NDArray[np.uint8],
        copies: NDArray[np.int64],
        copy_ranks: NDArray[np.int64],
        partners: NDArray[np.bytes_],
    ) -> None:
        self.fates, self.taken = fates, 0
        self._digests = np.load(folder / "ids.npy", mmap_mode="r")
        self._copies, self._copy_ranks = copies, copy_ranks
        self._partners = iter(partners.tolist())
        rows, hits = np.load(folder / "hits.npy").tolist(), (folder / "hits.jsonl").read_bytes().splitlines()
        self.hits: dict[int, list[Any]] = {r: orjson.loads(h) for r, h in zip(rows, hits, strict=True)}

    def ids_of(self, rows: slice) -> "pa.StringArray":
        """Ids of consecutive rows of the shard."""
        import pyarrow as pa

        digests = self._digests[rows].tobytes()
        first, last = np.searchsorted(self._copies, [rows.start, rows.stop])
        if first == last:
            offsets = np.arange(0, 2 * len(digests) + 1, 2 * ID_BYTES, dtype=np.int32)
            buffers = [pa.py_buffer(offsets), pa.py_buffer(digests.hex().encode())]
            return pa.StringArray.from_buffers(rows.stop - rows.start, *buffers)
        ranks = np.zeros(rows.stop - rows.start, np.int64)
        ranks[self._copies[first:last] - rows.start] = self._copy_ranks[first:last]
        ids = [example_id(digests[ID_BYTES * i : ID_BYTES * (i + 1)], r) for i, r in enumerate(ranks.tolist())]
        return pa.array(ids, pa.string())

    def hits_of(self, passed: "pa.RecordBatch", ids: "pa.StringArray", rows: slice) -> Iterator[bytes]:
        """JSON lines for the rows of a batch that overlap with benchmarks: id, fate, overlaps."""
        if not self.hits:
            return
        for i, row in enumerate(passed["row"].to_pylist()):
            if overlaps := self.hits.get(self.taken + i):
                fate = _HIT_FATES[int(self.fates[self.taken + i])]
                yield orjson.dumps([ids[row - rows.start].as_py(), fate, overlaps]) + b"\n"

    def strongest(self, number: int) -> str:
        """`task:question` of the question that shares most n-grams with a passed row."""
        task, question, *_ = self.hits[number][0]
        return f"{task}:{question}"

    def next_partner(self) -> str:
        """Id of the kept row that the next duplicate repeats."""
        return bytes(next(self._partners)).decode()


def _batches(folder: Path) -> Iterator[tuple["pa.RecordBatch", "pa.RecordBatch", slice]]:
    """(passed rows, dropped rows, the rows of the shard that both are); read, not mapped, so that memory stays flat."""
    import pyarrow as pa

    with pa.OSFile(str(folder / "passed.arrow")) as a, pa.OSFile(str(folder / "dropped.arrow")) as b:
        passed, dropped = pa.ipc.open_file(a), pa.ipc.open_file(b)
        row = 0
        for i in range(passed.num_record_batches):
            left, right = passed.get_batch(i), dropped.get_batch(i)
            end = row + left.num_rows + right.num_rows
            yield left, right, slice(row, end)
            row = end


def _examples(batch: "pa.RecordBatch", ids: "pa.StringArray", rows: slice, source: str) -> "pa.RecordBatch":
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = example_schema()
    columns = {
        "id": ids.take(pc.subtract(batch["row"], rows.start)),
        "source": pa.repeat(source, batch.num_rows),
    }
    return pa.record_batch(
        [columns.get(n, batch[n] if n in batch.schema.names else None) for n in schema.names], schema=schema
    )


def _lost(
    dropped: "pa.RecordBatch",
    gone: "pa.RecordBatch",
    fates: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    plan: _Plan,
) -> dict[str, list[Any]]:
    """Columns of all rows of a batch that are not in the corpus, in row order.

    dropped: those that a step dropped. gone, fates, numbers: duplicates and contaminated rows, with their fates and their
    numbers among the shard's passed rows.
    """
    columns: dict[str, list[Any]] = {**dropped.to_pydict(), "detail": [""] * dropped.num_rows}
    if not gone.num_rows:
        return columns
    for name in ("row", "record_bytes", "piece", "line"):
        columns[name] += gone[name].to_pylist()
    columns["preview"] += ["".join([t["text"] for t in turns])[:PREVIEW_CHARS] for turns in gone["turns"].to_pylist()]
    columns["reason"] += [_FATES[f] for f in fates.tolist()]
    for fate, number in zip(fates.tolist(), numbers.tolist(), strict=True):
        columns["detail"].append(plan.next_partner() if fate == DUPLICATE else plan.strongest(number))
    order = np.argsort(columns["row"])
    return {name: [values[i] for i in order] for name, values in columns.items()}


def _dropped(lost: Mapping[str, list[Any]], ids: "pa.StringArray", rows: slice, task: WriteTask) -> "pa.RecordBatch":
    import pyarrow as pa

    pieces = lost["piece"]
    columns = {
        **lost,
        "id": ids.take(pa.array(np.array(lost["row"], np.int64) - rows.start)),
        "source": pa.repeat(task.shard.source, len(pieces)),
        "file": [task.files[p] for p in pieces],
        "line": [task.lines[p] + n for p, n in zip(pieces, lost["line"], strict=True)],
    }
    schema = dropped_schema()
    return pa.record_batch({n: columns[n] for n in schema.names}, schema=schema)


class _Part:
    """A Parquet file, made with its first row; rows are gathered to row groups."""

    def __init__(self, path: Path, schema: "pa.Schema") -> None:
        self.path = path
        self._schema = schema
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: "pa.RecordBatch") -> None:
        if self._waiting and (self._rows + batch.num_rows > GROUP_ROWS or self._bytes + batch.nbytes > GROUP_BYTES):
            self._flush()
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self.path,
                self._schema,
                compression="zstd",
                # Texts and ids do not repeat: a dictionary of them only costs time.
                use_dictionary=[n for n in ("source", "language", "reason", "file") if n in self._schema.names],
                write_statistics=False,
            )
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema), row_group_size=GROUP_ROWS)
        self._waiting, self._rows, self._bytes = [], 0, 0

    def close(self) -> bool:
        """Whether the file holds a row (else there is none)."""
        if self._waiting:
            self._flush()
        if self._writer is None:
            return False
        self._writer.close()
        return True

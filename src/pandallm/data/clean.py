"""Raw files -> cleaned-corpus folder: read, adapt, clean, dedup, decontaminate, hold out; with a ledger that adds up.

Two passes: chunks are cleaned one by one (in worker processes where asked) into a file of rows under way; then, with
every key known, rows are kept, held out or dropped. Memory holds the keys (about 160 bytes an example with minhash), no
text.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.chunks import (
    PREVIEW_CHARS,
    CleanedChunk,
    clean_chunk,
    make_cleaner,
    read_chunks,
    rows_schema,
)
from pandallm.data.dedup import exact_duplicates, fold, near_duplicates
from pandallm.data.ledger import FATES, Ledger, audit_ledger
from pandallm.data.parallel import ordered_map
from pandallm.data.spec import CorpusSpec, HeldOutSpec, MinhashDedup, NoDedup
from pandallm.data.steps import check_steps
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import write_json, write_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

#: Raise when the same input and settings give other files.
VERSION = 1

_ROWS = ".rows.arrow"

__all__ = ["VERSION", "audit_ledger", "clean_corpus"]


@dataclass
class _FirstPass:
    """Of all rows under way, in order. row_sources, passed, contaminated: (rows,). keys, bands: (passed rows,)."""

    row_sources: NDArray[np.int64]
    passed: NDArray[np.bool_]
    contaminated: NDArray[np.bool_]
    id_digests: NDArray[np.bytes_]
    keys: NDArray[np.bytes_]
    bands: NDArray[np.uint64] | None


def clean_corpus(
    name: str,
    spec: CorpusSpec,
    files: Mapping[str, Sequence[Path]],
    out: Path,
    *,
    contamination: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the cleaned-corpus folder of docs/design.md to `out` and return its ledger.

    files: source -> its files, in order. contamination: task -> [(question id, text)], used where the corpus has
    `decontaminate`. The bytes written do not depend on `workers`. A source's `max_records` stops reading after so many
    records; the ledger counts what was read. Held out, per source: the documents with the lowest content hashes, with
    all copies of theirs where dedup is off.

    Raises BadInput for an unknown option, a source without a readable record, and when nothing is left to train on.
    """
    import pyarrow as pa

    for source, s in spec.sources.items():
        check_steps(spec.clean if s.clean is None else s.clean, f"corpora.{name}.sources.{source}.clean")
    make_cleaner(name, spec, {})  # unknown options are found before any file is read
    out.mkdir(parents=True, exist_ok=True)
    rows_path, ledger = out / _ROWS, Ledger()
    try:
        first, quarantine = _first_pass(name, spec, files, rows_path, contamination or {}, ledger, workers, progress)
        with pa.memory_map(str(rows_path)) as memory:
            rows = pa.ipc.open_file(memory)
            duplicate_of = _duplicates(spec, first, rows)
            held_out = _hold_out(name, spec, first, duplicate_of)
            _second_pass(list(spec.sources), files, rows, first, duplicate_of, held_out, out, ledger)
    finally:
        rows_path.unlink(missing_ok=True)
    write_jsonl(out / "quarantine.jsonl", quarantine)
    facts = ledger.facts()
    if not facts["total"]["kept"]["records"]:
        raise BadInput(f"corpora.{name}: nothing is left to train on ({_fates(facts['total'])}); loosen `clean`.")
    write_json(out / "ledger.json", facts)
    return facts


def _fates(total: Mapping[str, Any]) -> str:
    parts = {fate: total[fate] for fate in FATES} | total["dropped"]
    told = [f"{fate} {amount['records']}" for fate, amount in parts.items() if amount["records"]]
    return ", ".join([f"{total['records']} records read", *told])


def _file_names(paths: Sequence[Path]) -> list[str]:
    """Names below the files' common folder: the machine's folders have no place in the corpus."""
    root = os.path.commonpath([p.absolute().parent for p in paths]) if paths else ""
    return [p.absolute().relative_to(root).as_posix() for p in paths]


def _first_pass(
    name: str,
    spec: CorpusSpec,
    files: Mapping[str, Sequence[Path]],
    rows_path: Path,
    contamination: Mapping[str, Sequence[tuple[str, str]]],
    ledger: Ledger,
    workers: int,
    progress: Progress,
) -> tuple[_FirstPass, list[dict[str, Any]]]:
    import pyarrow as pa

    sources = list(spec.sources)
    names = {source: _file_names(files[source]) for source in sources}
    quarantine: list[dict[str, Any]] = []
    parts: list[tuple[int, CleanedChunk, NDArray[np.bool_], NDArray[np.bool_]]] = []
    broken = dict.fromkeys(sources, 0)
    records = dict.fromkeys(sources, 0)
    first_error: dict[str, str] = {}
    chunks = (c for source in sources for c in read_chunks(source, files[source], spec.sources[source].max_records))
    cleaned = ordered_map(clean_chunk, chunks, partial(make_cleaner, name, spec, contamination), workers)
    with (
        progress.task(f"clean {name}", None, "records") as task,
        pa.OSFile(str(rows_path), "wb") as sink,
        pa.ipc.new_file(sink, rows_schema()) as writer,
    ):
        for chunk in cleaned:
            source = chunk.source
            records[source] += chunk.records
            ledger.read(source, chunk.records, chunk.bytes)
            for number, line, size, error in chunk.quarantined:
                first_error.setdefault(source, f"{files[source][number]}:{line}: {error}")
                row = {"file": names[source][number], "line": line, "error": error, "source": source, "bytes": size}
                quarantine.append(row)
                ledger.book(source, "quarantined", 1, size)
                broken[source] += 1
            if chunk.rows.num_rows:
                writer.write_batch(chunk.rows)
                passed = chunk.rows["reason"].is_null().to_numpy(zero_copy_only=False)
                told = np.array([bool(d) for d in chunk.rows["detail"].to_pylist()], np.bool_)
                parts.append((sources.index(source), chunk, passed, told))
            task.advance(chunk.records, source)
    for source in sources:
        where = f"corpora.{name}.sources.{source}"
        if not records[source]:
            raise BadInput(
                f"{where}: {files[source][0] if files[source] else 'no file'} holds no record; check `files`."
            )
        if broken[source] == records[source]:
            raise BadInput(
                f"{where}: none of its {records[source]} records fits adapter {spec.sources[source].adapter}; "
                f"the first: {first_error[source]}."
            )
    minhash = isinstance(spec.dedup, MinhashDedup)
    first = _FirstPass(
        np.repeat([p[0] for p in parts], [p[1].rows.num_rows for p in parts]).astype(np.int64),
        np.concatenate([p[2] for p in parts]),
        np.concatenate([p[3] for p in parts]),
        np.concatenate([p[1].id_digests for p in parts]),
        np.concatenate([p[1].keys for p in parts]),
        np.concatenate([p[1].bands for p in parts if p[1].bands is not None]) if minhash else None,
    )
    return first, quarantine


def _text_reader(rows: "pa.ipc.RecordBatchFileReader") -> Callable[[int], str]:
    """row number -> key text, read from the memory-mapped file."""
    batches = [rows.get_batch(i) for i in range(rows.num_record_batches)]
    starts = np.cumsum([0, *(b.num_rows for b in batches)])

    def text(row: int) -> str:
        batch = int(np.searchsorted(starts, row, "right")) - 1
        turns = batches[batch]["turns"][row - int(starts[batch])].as_py()
        return fold("".join(t["text"] for t in turns))

    return text


def _duplicates(spec: CorpusSpec, first: _FirstPass, rows: "pa.ipc.RecordBatchFileReader") -> NDArray[np.int64]:
    """For each row the row that it repeats, else itself: (rows,)."""
    duplicate_of = np.arange(len(first.passed))
    if isinstance(spec.dedup, NoDedup):
        return duplicate_of
    where = np.flatnonzero(first.passed)
    representative = exact_duplicates(first.keys)
    if isinstance(spec.dedup, MinhashDedup):
        assert first.bands is not None
        read = _text_reader(rows)
        representative = near_duplicates(first.bands, representative, lambda i: read(int(where[i])), spec.dedup)
    duplicate_of[where] = where[representative]
    return duplicate_of


def _hold_out(name: str, spec: CorpusSpec, first: _FirstPass, duplicate_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are held out: (rows,)."""
    held = np.zeros(len(first.passed), np.bool_)
    wanted: HeldOutSpec = spec.held_out
    if not wanted.documents:
        return held
    ranks = np.zeros(len(first.passed), np.uint64)
    ranks[first.passed] = np.frombuffer(first.keys.tobytes(), ">u8").reshape(-1, 2)[:, 0]
    free = first.passed & ~first.contaminated & (duplicate_of == np.arange(len(held)))
    chosen: list[NDArray[np.uint64]] = []
    for i, source in enumerate(spec.sources):
        distinct = np.unique(ranks[free & (first.row_sources == i)])
        if 0 < len(distinct) <= wanted.documents:
            raise BadInput(
                f"corpora.{name}.held_out.documents: {wanted.documents} would leave nothing of source {source}, which "
                f"has {len(distinct)} documents after cleaning; lower it."
            )
        chosen.append(distinct[: wanted.documents])
    # Across sources: where dedup is off, a copy in another source must not be trained on.
    held[free] = np.isin(ranks[free], np.concatenate(chosen))
    return held


def _ids(digests: NDArray[np.bytes_]) -> list[str]:
    """Example ids; the second copy of a record gets `-2`, and so on."""
    _, inverse = np.unique(digests, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ordered = inverse[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, int)
    rank = np.empty(len(digests), np.int64)
    rank[order] = np.arange(len(digests)) - np.repeat(starts, np.diff([*starts, len(digests)]))
    data = digests.tobytes()
    return [data[12 * i : 12 * i + 12].hex() + (f"-{r + 1}" if r else "") for i, r in enumerate(rank.tolist())]


def _schemas() -> tuple["pa.Schema", "pa.Schema"]:
    import pyarrow as pa

    rows = rows_schema()
    text = pa.string()
    kept = [("id", text), ("source", text), ("language", text), ("turns", rows.field("turns").type)]
    numbers = [("utf8_bytes", pa.int64()), ("record_bytes", pa.int64())]
    dropped = [("id", text), ("source", text), ("reason", text), ("file", text), ("line", pa.int64())]
    more = [("preview", text), ("detail", text), ("record_bytes", pa.int64())]
    return pa.schema(kept + numbers), pa.schema(dropped + more)


def _second_pass(
    sources: list[str],
    files: Mapping[str, Sequence[Path]],
    rows: "pa.ipc.RecordBatchFileReader",
    first: _FirstPass,
    duplicate_of: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    out: Path,
    ledger: Ledger,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, names = _ids(first.id_digests), {s: _file_names(files[s]) for s in sources}
    kept_schema, dropped_schema = _schemas()
    schemas = {"examples": kept_schema, "held_out": kept_schema, "dropped": dropped_schema}
    parts = {name: out / f".{name}.parquet.part" for name in schemas}
    writers = {n: pq.ParquetWriter(parts[n], schema, compression="zstd") for n, schema in schemas.items()}
    try:
        start = 0
        for b in range(rows.num_record_batches):
            batch = rows.get_batch(b)
            span = slice(start, start + batch.num_rows)
            source = sources[int(first.row_sources[start])]
            start += batch.num_rows
            passed, own = first.passed[span], duplicate_of[span] == np.arange(span.start, span.stop)
            gone = ~passed | ~own | first.contaminated[span]
            sizes = batch["record_bytes"].to_numpy()
            batch = batch.set_column(0, "id", pa.array(ids[span], pa.string()))
            batch = batch.append_column("source", pa.array([source] * batch.num_rows, pa.string()))
            for fate, mask in (("kept", ~gone & ~held_out[span]), ("held_out", held_out[span])):
                if mask.any():
                    table = batch.filter(pa.array(mask)).select(kept_schema.names)
                    writers["examples" if fate == "kept" else fate].write_batch(table)
                    ledger.book(source, fate, int(mask.sum()), int(sizes[mask].sum()))
            dropped: dict[str, list[Any]] = {name: [] for name in dropped_schema.names}
            where = np.flatnonzero(gone)
            for i, row in zip(where.tolist(), batch.take(pa.array(where)).to_pylist(), strict=True):
                if row["reason"] is None:
                    row["preview"] = "".join(t["text"] for t in row["turns"])[:PREVIEW_CHARS]
                    row["reason"] = "contaminated" if own[i] else "duplicate"
                    if not own[i]:
                        row["detail"] = ids[int(duplicate_of[span.start + i])]
                row["file"] = names[source][row["file"]]
                for column, values in dropped.items():
                    values.append(row[column])
                ledger.book(source, row["reason"], 1, row["record_bytes"])
            if len(where):
                writers["dropped"].write_batch(pa.RecordBatch.from_pydict(dropped, schema=dropped_schema))
    finally:
        for writer in writers.values():
            writer.close()
    for name, part in parts.items():
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, out / f"{name}.parquet")

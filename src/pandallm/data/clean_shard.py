"""The stateless part of cleaning: a shard of raw records -> adapted, cleaned rows with their keys, in a folder.

The folder of a cleaned shard holds
    passed.arrow    rows that all steps let through, in batches
    dropped.arrow   rows that a step (or the adapter) dropped, batch by batch beside those of passed.arrow
    ids.npy         (rows,) 12 bytes: digest of every row that could be read, dropped or not, in file order
    rows.npy        (passed,) int64: the row of each passed row
    content.npy     (passed,) 16 bytes: key of the text, for exact duplicates
    bands.npy       (bands, passed) uint64, where the corpus has MinHash dedup
    hits.npy        (hits,) int64: the passed rows that overlap with benchmarks
    hits.jsonl      the overlaps of each of them
    quarantine.jsonl  [piece, line within the piece's unit, bytes, error]
    facts.json      what was counted; written last
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from pandallm.data.adapters import Adapted, Adapter, RecordError, get_adapter
from pandallm.data.decontaminate import ContaminationIndex
from pandallm.data.dedup import text_keys
from pandallm.data.files import RawRecord, parse_record, read_unit
from pandallm.data.memory import collector_off
from pandallm.data.shards import FACTS, Shard, ShardStore
from pandallm.data.spec import CorpusSpec, MinhashDedup
from pandallm.data.steps import Cleaned, Turns, make_steps
from pandallm.store import read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

#: So much is held in memory at once.
BATCH_RECORDS = 2_000
BATCH_BYTES = 4 << 20
PREVIEW_CHARS = 200
ID_BYTES = 12
#: Of a file that is not text at all, so many lines stand in the messages.
_ERRORS_TOLD = 3


@dataclass
class Source:
    """How records of one source become rows."""

    adapter: Adapter
    options: Mapping[str, str]
    language: str
    quality_field: str | None
    steps: Callable[[Turns, str | None], Cleaned]
    salt: bytes  # ids of equal records in two sources differ


@dataclass
class Cleaner:
    """What every worker holds: the settings and the contamination index."""

    store: ShardStore
    spec: CorpusSpec
    sources: dict[str, Source]
    index: ContaminationIndex | None


def make_cleaner(name: str, spec: CorpusSpec, folder: Path, contamination: Path | None) -> Cleaner:
    """Look adapters and steps up and build the index. Raises BadInput for unknown options.

    folder: of the shards under way. contamination: JSON, task -> [[question id, text]].
    """
    sources = {}
    for source, s in spec.sources.items():
        where = f"corpora.{name}.sources.{source}"
        sources[source] = Source(
            get_adapter(s.adapter, s.options, where, s.templates),
            s.options,
            s.language,
            s.quality_field,
            make_steps(spec.clean if s.clean is None else s.clean, f"{where}.clean"),
            f"{source}\n".encode(),
        )
    texts = read_json(contamination) if contamination else None
    index = ContaminationIndex(texts, spec.decontaminate.ngram_chars) if texts and spec.decontaminate else None
    return Cleaner(ShardStore(folder), spec, sources, index)


def turns_type() -> "pa.DataType":
    """Arrow type of an example's turns."""
    import pyarrow as pa

    return pa.list_(pa.struct([("text", pa.string()), ("train", pa.bool_())]))


def passed_schema() -> "pa.Schema":
    """Columns of passed.arrow. row: within the shard. piece, line: where the record begins; lines within the unit."""
    import pyarrow as pa

    return pa.schema(
        [
            ("row", pa.int64()),
            ("language", pa.string()),
            ("turns", turns_type()),
            ("utf8_bytes", pa.int64()),
            ("record_bytes", pa.int64()),
            ("quality", pa.float32()),
            ("piece", pa.int32()),
            ("line", pa.int64()),
        ]
    )


def dropped_schema() -> "pa.Schema":
    """Columns of dropped.arrow."""
    import pyarrow as pa

    numbers = [("row", pa.int64()), ("record_bytes", pa.int64()), ("piece", pa.int32()), ("line", pa.int64())]
    return pa.schema([*numbers, ("reason", pa.string()), ("preview", pa.string())])


@dataclass
class _Rows:
    """The rows of one batch, column by column."""

    digests: list[bytes] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # of passed rows
    places: list[tuple[int, int, int]] = field(default_factory=list)  # record bytes, piece, line of passed rows
    languages: list[str] = field(default_factory=list)
    qualities: list[float | None] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # of turns
    trains: list[bool] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)  # how many the row has
    joined: list[str] = field(default_factory=list)  # all turns of a row
    dropped: list[tuple[int, int, int, int, str, str]] = field(default_factory=list)  # as dropped_schema


def holds_out(spec: CorpusSpec) -> bool:
    """Whether any source keeps documents from training."""
    wanted = [spec.held_out, *(s.held_out for s in spec.sources.values() if s.held_out is not None)]
    return any(w.documents or w.share for w in wanted)


def clean_shard(cleaner: Cleaner, shard: Shard) -> int:
    """Parse, adapt and clean the records of a shard, make the keys for dedup, and commit the shard's folder.

    Returns the bytes planned for the shard. What is done already is not done again.
    """
    if not cleaner.store.is_cleaned(shard):
        with collector_off(), cleaner.store.commit(cleaner.store.shard(shard)) as folder:
            _clean(cleaner, shard, folder)
    return shard.bytes


def _clean(cleaner: Cleaner, shard: Shard, folder: Path) -> None:
    import pyarrow as pa

    minhash = isinstance(cleaner.spec.dedup, MinhashDedup)
    ranked = holds_out(cleaner.spec)
    count = _Count()
    ids: list[bytes] = []
    rows: list[NDArray[np.int64]] = []
    content: list[bytes] = []
    hit_rows: list[int] = []
    with (
        pa.OSFile(str(folder / "passed.arrow"), "wb") as passed_sink,
        pa.ipc.new_file(passed_sink, passed_schema()) as passed,
        pa.OSFile(str(folder / "dropped.arrow"), "wb") as dropped_sink,
        pa.ipc.new_file(dropped_sink, dropped_schema()) as dropped,
        open(folder / ".bands", "wb") as bands,
        open(folder / "hits.jsonl", "wb") as hits,
        open(folder / "quarantine.jsonl", "wb") as quarantine,
    ):
        first = passed_before = 0
        for batch in _batches(cleaner.sources[shard.source], shard, quarantine, count):
            start = first
            first += len(batch.digests)
            ids.append(b"".join(batch.digests))
            rows.append(np.array(batch.rows, np.int64) + start)
            passed.write_batch(_passed(batch, start))
            dropped.write_batch(_dropped(batch, start))
            keys = text_keys(batch.joined, cleaner.spec.dedup, ranked=ranked)
            content.append(keys.content.tobytes())
            if keys.bands is not None:
                keys.bands.tofile(bands)
            if cleaner.index is not None:
                for i, overlaps in enumerate(cleaner.index.overlaps(batch.joined)):
                    if overlaps:
                        hit_rows.append(passed_before + i)
                        hits.write(orjson.dumps([list(o) for o in overlaps]) + b"\n")
            passed_before += len(batch.joined)
    np.save(folder / "ids.npy", np.frombuffer(b"".join(ids), np.dtype((np.void, ID_BYTES))))
    np.save(folder / "rows.npy", np.concatenate(rows) if rows else np.zeros(0, np.int64))
    np.save(folder / "content.npy", np.frombuffer(b"".join(content), np.dtype((np.void, 16))))
    np.save(folder / "hits.npy", np.array(hit_rows, np.int64))
    if minhash:
        _transpose(folder / ".bands", folder / "bands.npy", passed_before)
    (folder / ".bands").unlink()
    write_json(folder / FACTS, {**count.facts(), "rows": first, "passed": passed_before})


def _transpose(flat: Path, target: Path, rows: int) -> None:
    """(rows, bands) in a bare file -> (bands, rows) in a .npy file: the reduce reads one band at a time."""
    if not rows:
        np.save(target, np.zeros((0, 0), np.uint64))
        return
    by_row = np.memmap(flat, np.uint64, "r").reshape(rows, -1)
    by_band = np.lib.format.open_memmap(target, "w+", np.uint64, by_row.shape[::-1])
    for band in range(len(by_band)):
        by_band[band] = by_row[:, band]
    by_band.flush()


@dataclass
class _Count:
    """What is counted while a shard is read."""

    records: int = 0
    bytes: int = 0
    quarantined: int = 0
    quarantined_bytes: int = 0
    lines: list[int] = field(default_factory=list)  # of each piece's unit
    errors: list[tuple[int, int, str]] = field(default_factory=list)  # the first: piece, line, what is wrong
    masked: dict[str, int] = field(default_factory=dict)  # stretches of personal data, by kind
    broken: list[tuple[int, int, str]] = field(default_factory=list)  # where a file could not be read as records

    def facts(self) -> dict[str, Any]:
        return dict(vars(self))


def _batches(source: Source, shard: Shard, quarantine: IO[bytes], count: _Count) -> Iterator[_Rows]:
    for number, piece in enumerate(shard.pieces):
        reader = read_unit(piece.unit)
        records = islice(reader, piece.limit)
        kind = piece.unit.format
        while True:
            batch = _Rows()
            if not _read_batch(source, records, number, kind, batch, quarantine, count):
                break
            yield batch
        count.lines.append(reader.lines)


def _read_batch(
    source: Source,
    records: Iterator[RawRecord],
    piece: int,
    kind: str,
    batch: _Rows,
    quarantine: IO[bytes],
    count: _Count,
) -> bool:
    """Fill a batch; False where no record is left. The loop over all records: what can be done later by column is."""
    adapt, options, steps, salt = source.adapter.adapt, source.options, source.steps, source.salt
    language, quality_field = source.language, source.quality_field
    dumps, digest, sort_keys = orjson.dumps, xxh3_128_digest, orjson.OPT_SORT_KEYS
    digests, texts, trains, dropped = batch.digests, batch.texts, batch.trains, batch.dropped
    size = done = bad = bad_bytes = 0
    for raw in records:
        done += 1
        record_bytes = raw.size
        size += record_bytes
        record = parse_record(raw, kind)
        error = None
        quality = None
        if isinstance(record, str):
            error = record
        else:
            try:
                adapted = adapt(record, options)
                if quality_field is not None:
                    quality = _quality(record, quality_field)
            except RecordError as e:
                error = str(e)
        if error is not None:
            bad += 1
            bad_bytes += record_bytes
            quarantine.write(orjson.dumps([piece, raw.line, record_bytes, error]) + b"\n")
            if len(count.errors) < _ERRORS_TOLD:
                count.errors.append((piece, raw.line, error))
            if raw.error is not None and len(count.broken) < _ERRORS_TOLD:
                count.broken.append((piece, raw.line, error))
        else:
            row = len(digests)
            try:
                identity = salt + dumps(record, option=sort_keys)
            except TypeError:  # nested too deeply for orjson to write
                identity = salt + raw.raw
            digests.append(digest(identity)[:ID_BYTES])
            if isinstance(adapted, Adapted):
                cleaned = steps(adapted.turns, adapted.language or language)
                own_language = cleaned.language or language
                turns, reason = cleaned.turns, cleaned.reason
                if cleaned.masked and reason is None:
                    for kind_masked, times in cleaned.masked.items():
                        count.masked[kind_masked] = count.masked.get(kind_masked, 0) + times
                text = turns[0].text if len(turns) == 1 else "".join([t.text for t in turns])
            else:
                reason, text = adapted.reason, raw.raw[: 4 * PREVIEW_CHARS].decode(errors="replace")
            if reason is None:
                for turn in turns:
                    texts.append(turn.text)
                    trains.append(turn.train)
                batch.turns.append(len(turns))
                batch.joined.append(text)
                batch.rows.append(row)
                batch.places.append((record_bytes, piece, raw.line))
                batch.languages.append(own_language)
                batch.qualities.append(quality if cleaned.quality is None else cleaned.quality)
            else:
                dropped.append((row, record_bytes, piece, raw.line, reason, text[:PREVIEW_CHARS]))
        if size >= BATCH_BYTES or done >= BATCH_RECORDS:
            break
    count.records += done
    count.bytes += size
    count.quarantined += bad
    count.quarantined_bytes += bad_bytes
    return done > 0


def _quality(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"field `{name}` (quality_field) is not a number but {type(value).__name__}")
    return float(value)


def _passed(batch: _Rows, start: int) -> "pa.RecordBatch":
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(batch.texts, pa.string())
    offsets = np.concatenate([[0], np.cumsum(np.array(batch.turns, np.int32))]).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False))])
    struct = pa.StructArray.from_arrays([texts, pa.array(batch.trains, pa.bool_())], names=["text", "train"])
    places = np.array(batch.places, np.int64).reshape(-1, 3)
    return pa.record_batch(
        [
            pa.array(np.array(batch.rows, np.int64) + start),
            pa.array(batch.languages, pa.string()),
            pa.ListArray.from_arrays(pa.array(offsets), struct),
            pa.array(np.diff(ends[offsets]).astype(np.int64)),
            pa.array(places[:, 0]),
            pa.array(batch.qualities, pa.float32()),
            pa.array(places[:, 1].astype(np.int32)),
            pa.array(places[:, 2]),
        ],
        schema=passed_schema(),
    )


def _dropped(batch: _Rows, start: int) -> "pa.RecordBatch":
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = dropped_schema()
    columns = zip(*batch.dropped, strict=True) if batch.dropped else [()] * len(schema)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    arrays[0] = pc.add(arrays[0], start)
    return pa.record_batch(arrays, schema=schema)

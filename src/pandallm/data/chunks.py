"""The stateless part of cleaning: a chunk of raw records -> adapted, cleaned rows with their keys."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.adapters import Adapted, Adapter, RecordError, Skip, get_adapter
from pandallm.data.decontaminate import Contamination, ContaminationIndex
from pandallm.data.dedup import band_keys, content_keys, fold
from pandallm.data.files import RawRecord, file_format, parse_record, read_raw
from pandallm.data.spec import CorpusSpec, MinhashDedup
from pandallm.data.steps import Turns, run_steps
from pandallm.data.types import Turn
from pandallm.store import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_RECORDS = 2_000
CHUNK_BYTES = 4 << 20
PREVIEW_CHARS = 200


@dataclass(frozen=True)
class Chunk:
    """Consecutive raw records of one source; each with the number of its file among the source's."""

    source: str
    records: list[tuple[int, str, RawRecord]]  # file number, format, record

    @property
    def bytes(self) -> int:
        return sum(len(r.raw) for _, _, r in self.records)


@dataclass(frozen=True)
class CleanedChunk:
    """What became of a chunk. `rows` holds every record that could be read, `reason` null where it passed.

    id_digests: (rows,) of 12 bytes. keys: (passed,) of 16 bytes. bands: (passed, bands), only for minhash.
    quarantined: (file number, line, bytes, error).
    """

    source: str
    records: int
    bytes: int
    rows: "pa.RecordBatch"
    id_digests: NDArray[np.bytes_]
    keys: NDArray[np.bytes_]
    bands: NDArray[np.uint64] | None
    quarantined: list[tuple[int, int, int, str]]


def read_chunks(source: str, files: Sequence[Path], max_records: int | None) -> Iterator[Chunk]:
    """The records of a source in order, cut by count and bytes; what is cut where depends on the files alone."""
    records: list[tuple[int, str, RawRecord]] = []
    size, left = 0, max_records
    for number, path in enumerate(files):
        kind = file_format(path) or ".jsonl"
        for raw in read_raw(path):
            if left is not None:
                if left == 0:
                    break
                left -= 1
            records.append((number, kind, raw))
            size += len(raw.raw)
            if len(records) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield Chunk(source, records)
                records, size = [], 0
    if records:
        yield Chunk(source, records)


@dataclass
class Cleaner:
    """What every worker holds: the settings and the contamination index."""

    name: str
    spec: CorpusSpec
    index: ContaminationIndex | None
    adapters: dict[str, Adapter]


def make_cleaner(name: str, spec: CorpusSpec, contamination: Contamination) -> Cleaner:
    """Look adapters up and build the index. Raises BadInput for unknown options."""
    decontaminate = spec.decontaminate
    index = ContaminationIndex(contamination, decontaminate.ngram_chars) if decontaminate and contamination else None
    adapters = {
        source: get_adapter(s.adapter, s.options, f"corpora.{name}.sources.{source}")
        for source, s in spec.sources.items()
    }
    return Cleaner(name, spec, index, adapters)


def rows_schema() -> "pa.Schema":
    """Columns of the rows under way."""
    import pyarrow as pa

    turn = pa.struct([("text", pa.string()), ("train", pa.bool_())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("language", pa.string()),
            ("turns", pa.list_(turn)),
            ("utf8_bytes", pa.int64()),
            ("record_bytes", pa.int64()),
            ("file", pa.int32()),
            ("line", pa.int64()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("preview", pa.string()),
        ]
    )


@dataclass
class _Rows:
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **values: Any) -> None:
        for name, value in values.items():
            self.columns.setdefault(name, []).append(value)


def _adapt(cleaner: Cleaner, source: str, raw: RawRecord, kind: str) -> tuple[Adapted | Skip, dict[str, Any]] | str:
    """The adapted record and the record itself, or why it cannot be read."""
    record = parse_record(raw, kind)
    if isinstance(record, str):
        return record
    try:
        adapted = cleaner.adapters[source].adapt(record, cleaner.spec.sources[source].options)
        if isinstance(adapted, Adapted):
            for turn in adapted.turns:
                turn.text.encode()
    except RecordError as e:
        return str(e)
    except UnicodeEncodeError as e:
        return f"half of a surrogate pair in the text (character {e.start + 1})"
    return adapted, record


def clean_chunk(cleaner: Cleaner, chunk: Chunk) -> CleanedChunk:
    """Parse, adapt and clean the records of a chunk, and make the keys for dedup; pure."""
    import pyarrow as pa

    source, spec = cleaner.spec.sources[chunk.source], cleaner.spec
    steps = spec.clean if source.clean is None else source.clean
    rows, digests, passed = _Rows({name: [] for name in rows_schema().names}), [], list[str]()
    quarantined: list[tuple[int, int, int, str]] = []
    for number, kind, raw in chunk.records:
        result = _adapt(cleaner, chunk.source, raw, kind)
        if isinstance(result, str):
            quarantined.append((number, raw.line, len(raw.raw), result))
            continue
        adapted, record = result
        identity = f"{chunk.source}\n{canonical_json(record)}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(identity).digest()[:12]
        digests.append(digest)
        turns: Turns = ()
        language, reason = source.language, None
        if isinstance(adapted, Skip):
            reason, text = adapted.reason, raw.raw.decode(errors="replace")
        else:
            turns, reason = run_steps(adapted.turns, steps)
            text, language = "".join(t.text for t in turns), adapted.language or language
        if reason is None:
            passed.append(text)
        rows.add(
            id=digest.hex(),
            language=language,
            turns=[] if reason else [_turn(t) for t in turns],
            utf8_bytes=0 if reason else len(text.encode()),
            record_bytes=len(raw.raw),
            file=number,
            line=raw.line,
            reason=reason,
            detail="",
            preview=text[:PREVIEW_CHARS] if reason else "",
        )
    if cleaner.index is not None:
        found = iter(cleaner.index.find(passed))
        for i, reason in enumerate(rows.columns["reason"]):
            if reason is None and (hit := next(found)) is not None:
                rows.columns["detail"][i] = f"{hit[0]}:{hit[1]}"
    folded = [fold(t) for t in passed]
    return CleanedChunk(
        chunk.source,
        len(chunk.records),
        chunk.bytes,
        pa.RecordBatch.from_pydict(rows.columns, schema=rows_schema()),
        np.frombuffer(b"".join(digests), np.dtype((np.void, 12))),
        content_keys(folded),
        band_keys(folded, spec.dedup) if isinstance(spec.dedup, MinhashDedup) else None,
        quarantined,
    )


def _turn(turn: Turn) -> dict[str, Any]:
    return {"text": turn.text, "train": turn.train}

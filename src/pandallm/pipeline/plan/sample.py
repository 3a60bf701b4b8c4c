"""A sample of a corpus's raw records, cleaned and packed as a run would, in a folder of its own."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO

import orjson

from pandallm.data.files import parse_record, plan_units, read_unit
from pandallm.data.raw import RawRecord, Unit
from pandallm.data.spec import CorpusSpec, HeldOutSpec, NoDedup, SourceSpec
from pandallm.data.streams import COMPRESSIONS

#: Raw bytes read of a corpus; one that is no larger is read whole, and its figures are then exact.
SAMPLE_BYTES = 4_000_000
#: Stretches that a large file is sampled in.
STRETCHES = 24
#: Of a compressed file at most so much is unpacked.
UNPACKED_BYTES = 64_000_000


@dataclass(frozen=True)
class SourceSample:
    """Records taken of a source. share: of all its records; 1 where all were taken."""

    records: int
    raw_bytes: int
    share: float


def sample_source(spec: SourceSpec, files: Sequence[Path], target: Path, wanted: float) -> SourceSample:
    """Write about `wanted` raw bytes of a source's records to `target`, evenly spread over its files, as JSON lines."""
    if spec.max_records:
        return _sample_first(spec.max_records, files, target, wanted)
    sizes = [_unpacked(f) for f in files]
    total = sum(sizes)
    whole = total <= wanted
    records = raw = 0
    with open(target, "wb") as out:
        for file, size in zip(files, sizes, strict=True):
            part = wanted * size / max(1.0, total)
            for record, kind in _records(file, size, None if whole else part):
                written = _write(record, kind, out)
                records += written
                raw += written * (len(record.raw) + 1)
    if whole or not records:
        return SourceSample(records, raw, 1.0)
    return SourceSample(records, raw, min(1.0, records / (total / (raw / records))))


def _sample_first(most: int, files: Sequence[Path], target: Path, wanted: float) -> SourceSample:
    """The same of a source of which only the first `most` records are read."""

    def stream() -> Iterator[tuple[RawRecord, str]]:
        everything = ((r, u.format) for f in files for u in plan_units(f, 1 << 40) for r in read_unit(u))
        return islice(everything, most)

    sizes = [len(record.raw) + 1 for record, _ in stream()]
    share = min(1.0, wanted / max(1, sum(sizes)))
    records = raw = 0
    due = 0.0
    with open(target, "wb") as out:
        for record, kind in stream():
            due += share
            if due < 1:
                continue
            due -= 1
            written = _write(record, kind, out)
            records += written
            raw += written * (len(record.raw) + 1)
    return SourceSample(records, raw, 1.0 if share == 1.0 else records / len(sizes))


def _write(record: RawRecord, kind: str, out: IO[bytes]) -> int:
    """Write one record as a line; 0 where it cannot be read."""
    parsed = parse_record(record, kind)
    if isinstance(parsed, str):
        return 0
    out.write(orjson.dumps(parsed) + b"\n")
    return 1


def _unpacked(file: Path) -> float:
    """Bytes of a file; of a compressed one what it will unpack to, by the ratio of its beginning."""
    size = file.stat().st_size
    if file.suffix.lower() not in (*COMPRESSIONS, ".tgz"):
        return float(size)
    taken = 0
    text: list[bytes] = []
    for record in read_unit(Unit(file, _format(file), 0, -1, size)):
        taken += len(record.raw) + 1
        if len(text) < 2000:
            text.append(record.raw)
        if taken > UNPACKED_BYTES:
            break
    else:
        return float(taken)
    # Not through: a file as large as this is judged by how well its beginning compresses.
    beginning = b"".join(text)
    return max(float(taken), size * len(beginning) / max(1, len(zlib.compress(beginning, 6))))


def _format(file: Path) -> str:
    from pandallm.data.files import file_format

    return file_format(file) or ".jsonl"


def _records(file: Path, size: float, part: float | None) -> Iterator[tuple[RawRecord, str]]:
    """Records of a file, evenly spread, until about `part` bytes (None: all)."""
    units = plan_units(file, max(1, int(size // STRETCHES)) if part is not None else 1 << 40)
    if part is None:
        for unit in units:
            for record in read_unit(unit):
                yield record, unit.format
        return
    if len(units) > 1:
        each = part / len(units)
        for unit in units:
            taken = 0.0
            for record in read_unit(unit):
                yield record, unit.format
                taken += len(record.raw) + 1
                if taken >= each:
                    break
        return
    # One stream, as far as it is unpacked: every k-th record, so that long ones are no likelier than short ones.
    limit = min(size, UNPACKED_BYTES)
    share = min(1.0, part / limit)
    position, due = 0.0, 0.0
    for unit in units:
        for record in read_unit(unit):
            position += len(record.raw) + 1
            due += share
            if due >= 1:
                yield record, unit.format
                due -= 1
            if position >= limit:
                return


@dataclass(frozen=True)
class CorpusSample:
    """A cleaned corpus of sampled records. `whole`: everything was taken, so that its figures are exact."""

    folder: Path
    sources: Mapping[str, SourceSample]
    whole: bool


def sample_corpus(
    name: str,
    spec: CorpusSpec,
    files: Mapping[str, Sequence[Path]],
    folder: Path,
    *,
    contamination: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    wanted: float = SAMPLE_BYTES,
) -> CorpusSample:
    """Clean a sample of a corpus into `folder / name`.

    A sample that is the whole corpus is cleaned as the recipe says; another without dedup, which a sample cannot show, and its
    `share` of each source counts held-out documents out. Raises BadInput as cleaning does.
    """
    from pandallm.data.clean import clean_corpus

    raw = folder / f"{name}-raw"
    raw.mkdir(parents=True)
    sizes = {source: sum(_unpacked(f) for f in paths) for source, paths in files.items()}
    total = sum(sizes.values())
    taken: dict[str, SourceSample] = {}
    for source, paths in files.items():
        # At least a tenth of an even part, so that small sources are seen.
        part = wanted * max(sizes[source] / max(1.0, total), 0.1 / len(files))
        share = sizes[source] if total <= wanted else part
        taken[source] = sample_source(spec.sources[source], paths, raw / f"{source}.jsonl", share)
    whole = all(s.share == 1.0 for s in taken.values())
    sources = {
        s: v if whole else v.model_copy(update={"max_records": None, "held_out": None}) for s, v in spec.sources.items()
    }
    changes: dict[str, object] = {"sources": sources}
    if not whole:
        changes |= {"dedup": NoDedup(), "held_out": HeldOutSpec()}
        taken = {s: _without_held_out(t, spec.sources[s].held_out or spec.held_out) for s, t in taken.items()}
    clean_corpus(
        name,
        spec.model_copy(update=changes),
        {s: [raw / f"{s}.jsonl"] for s in files},
        folder / name,
        contamination=contamination,
    )
    return CorpusSample(folder / name, taken, whole)


def _without_held_out(sample: SourceSample, held_out: HeldOutSpec) -> SourceSample:
    """The sample as a share of the records that are not held out."""
    records = sample.records / sample.share
    kept = 1 - max(held_out.share, min(1.0, held_out.documents / max(1.0, records)))
    return replace(sample, share=sample.share / max(1e-9, kept)) if sample.records else sample

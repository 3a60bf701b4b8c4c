"""A sample of a corpus's raw records, cleaned and packed as a run would, in a folder of its own."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from pandallm.data.files import parse_record, plan_units, read_unit
from pandallm.data.raw import RawRecord, Unit
from pandallm.data.spec import CorpusSpec, SourceSpec
from pandallm.data.streams import COMPRESSIONS

#: Raw bytes read of a corpus; one that is no larger is read whole, and its figures are then exact.
SAMPLE_BYTES = 3_000_000
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
    sizes = [_unpacked(f) for f in files]
    total = sum(sizes)
    whole = total <= wanted
    records = raw = seen = 0
    with open(target, "wb") as out:
        for file, size in zip(files, sizes, strict=True):
            part = wanted * size / max(1.0, total)
            for record, kind, counted in _records(file, size, None if whole else part):
                seen += counted
                parsed = parse_record(record, kind)
                if isinstance(parsed, str) or (spec.max_records and records >= spec.max_records and whole):
                    continue
                out.write(orjson.dumps(parsed) + b"\n")
                records += 1
                raw += len(record.raw) + 1
    if whole or not records:
        return SourceSample(records, raw, 1.0)
    estimated = total / (raw / records)
    if spec.max_records:
        estimated = min(estimated, spec.max_records)
    return SourceSample(records, raw, min(1.0, records / estimated))


def _unpacked(file: Path) -> float:
    """Bytes of a file; of a compressed one what it will unpack to, by the ratio of its beginning."""
    size = file.stat().st_size
    if file.suffix.lower() not in (*COMPRESSIONS, ".tgz"):
        return float(size)
    taken = packed = 0
    for record in read_unit(Unit(file, _format(file), 0, -1, size)):
        taken += len(record.raw) + 1
        if taken > 4 * size or taken > UNPACKED_BYTES:
            break
    else:
        return float(taken)
    # Not through: a file as large as this is judged by how well its text compresses.
    with open(file, "rb") as f:
        packed = len(f.read(1 << 20))
    text = b"".join(r.raw for _, r in zip(range(2000), read_unit(Unit(file, _format(file), 0, -1, size))))
    ratio = len(text) / max(1, len(zlib.compress(text, 6)))
    return float(size * ratio) if packed else float(size)


def _format(file: Path) -> str:
    from pandallm.data.files import file_format

    return file_format(file) or ".jsonl"


def _records(file: Path, size: float, part: float | None) -> Iterator[tuple[RawRecord, str, int]]:
    """Records of a file, evenly spread, until about `part` bytes (None: all)."""
    units = plan_units(file, max(1, int(size // STRETCHES)) if part is not None else 1 << 40)
    if part is None:
        for unit in units:
            for record in read_unit(unit):
                yield record, unit.format, 1
        return
    if len(units) > 1:
        each = part / len(units)
        for unit in units:
            taken = 0.0
            for record in read_unit(unit):
                yield record, unit.format, 1
                taken += len(record.raw) + 1
                if taken >= each:
                    break
        return
    # One stream: every k-th stretch of bytes, as far as it is unpacked.
    limit = min(size, UNPACKED_BYTES)
    step = max(1.0, limit / part)
    position, due = 0.0, 0.0
    for unit in units:
        for record in read_unit(unit):
            length = len(record.raw) + 1
            position += length
            if position >= due:
                yield record, unit.format, 1
                due += length * step
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

    A sample that is the whole corpus is cleaned as the recipe says; another without dedup, decontamination and held-out text, whose
    parts a sample cannot show. Raises BadInput as cleaning does.
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
        from pandallm.data.spec import HeldOutSpec, NoDedup

        changes |= {"dedup": NoDedup(), "decontaminate": None, "held_out": HeldOutSpec()}
    clean_corpus(
        name,
        spec.model_copy(update=changes),
        {s: [raw / f"{s}.jsonl"] for s in files},
        folder / name,
        contamination=contamination if whole else None,
    )
    return CorpusSample(folder / name, taken, whole)

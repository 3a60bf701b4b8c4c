"""Samples of a cleaned corpus and of packs, drawn by a seed: what `panda data show` prints."""

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.data.corpus import part_batches, part_files
from pandallm.errors import BadInput
from pandallm.spec import nearest
from pandallm.store import read_json, read_jsonl

if TYPE_CHECKING:
    from pandallm.data.packs import Packs

Json = dict[str, Any]
#: The reason whose `detail` is the id of the kept example that the dropped one repeats.
DUPLICATE = "duplicate"


def sample_examples(
    folder: Path, n: int, seed: int, sources: Collection[str] = (), part: str = "examples"
) -> list[Json]:
    """`n` examples of a cleaned corpus (or of its part `held_out`), in their order; of `sources` alone where some are named.

    Each is {"id", "source", "language", "turns": [{"text", "train"}], "utf8_bytes", "quality"}. Raises BadInput for a source that
    the corpus does not have.
    """
    check_names("source", sources, read_json(folder / "ledger.json")["sources"])
    places = [
        i for i, (source,) in enumerate(_column_rows(folder, part, ["source"])) if not sources or source in sources
    ]
    chosen = sorted(random.Random(seed).sample(places, min(n, len(places))))
    return list(_rows_at(folder, part, chosen))


def sample_dropped(
    folder: Path, n: int, seed: int, reasons: Collection[str] = (), sources: Collection[str] = ()
) -> dict[str, Json]:
    """Reason -> {"records": how many, "rows": `n` of them}, most frequent first; of `reasons` and `sources` alone where some are named.

    Rows are as in `dropped` of docs/design.md; those of duplicates also have "partner": {"id", "source", "text"} of the kept
    example, or None where it cannot be found.
    """
    ledger = read_json(folder / "ledger.json")
    check_names("source", sources, ledger["sources"])
    places: dict[str, list[int]] = defaultdict(list)
    for i, (source, reason) in enumerate(_column_rows(folder, "dropped", ["source", "reason"])):
        if (not sources or source in sources) and (not reasons or reason in reasons):
            places[reason].append(i)
    draw = random.Random(seed)
    chosen = {reason: draw.sample(found, min(n, len(found))) for reason, found in sorted(places.items())}
    numbers = sorted(i for found in chosen.values() for i in found)
    rows = dict(zip(numbers, _rows_at(folder, "dropped", numbers), strict=True))
    add_partners(folder, rows.values())
    ordered = sorted(chosen, key=lambda reason: -len(places[reason]))
    return {
        reason: {"records": len(places[reason]), "rows": [rows[i] for i in sorted(chosen[reason])]}
        for reason in ordered
    }


def add_partners(folder: Path, rows: Collection[Json]) -> None:
    """Give dropped duplicates their "partner", see `sample_dropped`."""
    partners = _texts_of(folder, {r["detail"] for r in rows if r["reason"] == DUPLICATE})
    for row in rows:
        if row["reason"] == DUPLICATE:
            row["partner"] = partners.get(row["detail"])


def sample_quarantine(folder: Path, n: int, seed: int, sources: Collection[str] = ()) -> Json:
    """{"records", "rows"} as `sample_dropped` gives for a reason, of the records that could not be read."""
    rows = [r for r in read_jsonl(folder / "quarantine.jsonl") if not sources or r["source"] in sources]
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(n, len(rows))))
    return {"records": len(rows), "rows": [rows[i] for i in chosen]}


def sample_rows(packs: "Packs", n: int, seed: int, sources: Collection[str] = ()) -> list[int]:
    """Numbers of `n` packed rows, in order; of those that hold tokens of `sources` where some are named."""
    import numpy as np

    check_names("source", sources, packs.sources)
    places = np.arange(packs.rows)
    if sources:
        wanted = [i for i, name in enumerate(packs.sources) if name in sources]
        hit = np.flatnonzero(np.isin(packs.arrays["source_ids"], wanted))
        places = np.unique(np.searchsorted(packs.arrays["row_offsets"], hit, "right") - 1)
    return sorted(random.Random(seed).sample(places.tolist(), min(n, len(places))))


def check_names(what: str, names: Collection[str], known: Collection[str]) -> None:
    """BadInput for a name that is none of the known."""
    for name in names:
        if name not in known:
            raise BadInput(f"There is no {what} '{name}' here.{nearest(name, sorted(known))}")


def _column_rows(folder: Path, part: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Some columns of a part, row by row."""
    for batch in part_batches(folder, part, columns, 65_536):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _rows_at(folder: Path, part: str, numbers: Sequence[int]) -> Iterator[Json]:
    """The rows of these numbers (ascending), counted over all files of a part; only the row groups that hold one are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting, start = list(numbers), 0
    for path in part_files(folder, part):
        if not waiting:
            return
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                here = [i for i in waiting if i < stop]
                if here:
                    waiting = waiting[len(here) :]
                    table = file.read_row_group(group)
                    yield from table.take(pa.array([i - start for i in here])).to_pylist()
                start = stop


def rows_of(folder: Path, part: str, ids: Collection[str]) -> list[Json]:
    """The rows of a part that have these ids, in their order."""
    if not ids:
        return []
    return list(
        _rows_at(folder, part, [i for i, (name,) in enumerate(_column_rows(folder, part, ["id"])) if name in ids])
    )


def _texts_of(folder: Path, ids: Collection[str]) -> dict[str, Json]:
    """Id -> {"id", "source", "text"} of the examples, kept or held out, that have these ids."""
    return {
        row["id"]: {"id": row["id"], "source": row["source"], "text": "".join(t["text"] for t in row["turns"])}
        for part in ("examples", "held_out")
        for row in rows_of(folder, part, ids)
    }

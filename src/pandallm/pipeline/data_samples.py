"""Samples of a cleaned corpus and of packs, drawn by a seed: what `panda data show` prints."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.corpus import part_batches, part_files, part_rows
from pandallm.errors import BadInput
from pandallm.spec import nearest
from pandallm.store import read_json, read_jsonl

if TYPE_CHECKING:
    from pandallm.data.packs import Packs

Json = dict[str, Any]
#: The reason whose `detail` is the id of the kept example that the dropped one repeats.
DUPLICATE = "duplicate"
_BLOCK_ROWS = 4096


def sample_examples(
    folder: Path, n: int, seed: int, sources: Collection[str] = (), part: str = "examples"
) -> list[Json]:
    """`n` examples of a cleaned corpus (or of its part `held_out`), in their order; of `sources` alone where some are named.

    Each is {"id", "source", "language", "turns": [{"text", "train"}], "utf8_bytes", "quality"}. Raises BadInput for a source that
    the corpus does not have.
    """
    check_names("source", sources, read_json(folder / "ledger.json")["sources"])
    places = _places(folder, part, {"source": sources})
    return list(_rows_at(folder, part, _draw(places, n, random.Random(seed))))


def sample_dropped(
    folder: Path, n: int, seed: int, reasons: Collection[str] = (), sources: Collection[str] = ()
) -> dict[str, Json]:
    """Reason -> {"records": how many, "rows": `n` of them}, most frequent first; of `reasons` and `sources` alone where some are named.

    Rows are as in `dropped` of docs/design.md; those of duplicates also have "partner": {"id", "source", "text"} of the kept
    example, or None where it cannot be found.
    """
    ledger = read_json(folder / "ledger.json")
    check_names("source", sources, ledger["sources"])
    known = [reason for reason in ledger["total"]["dropped"] if not reasons or reason in reasons]
    draw, chosen, records = random.Random(seed), dict[str, list[int]](), dict[str, int]()
    for reason in sorted(known):
        places = _places(folder, "dropped", {"source": sources, "reason": (reason,)})
        if len(places):
            chosen[reason], records[reason] = _draw(places, n, draw), len(places)
    numbers = sorted(i for found in chosen.values() for i in found)
    rows = dict(zip(numbers, _rows_at(folder, "dropped", numbers), strict=True))
    add_partners(folder, rows.values())
    return {
        reason: {"records": records[reason], "rows": [rows[i] for i in chosen[reason]]}
        for reason in sorted(chosen, key=lambda reason: -records[reason])
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
    chosen = _draw(np.arange(len(rows)), n, random.Random(seed))
    return {"records": len(rows), "rows": [rows[i] for i in chosen]}


def sample_rows(packs: "Packs", n: int, seed: int, sources: Collection[str] = ()) -> list[int]:
    """Numbers of `n` packed rows, in order; of those that hold tokens of `sources` where some are named."""
    check_names("source", sources, packs.sources)
    places = np.arange(packs.rows)
    if sources:
        wanted = np.isin(np.arange(256), [i for i, name in enumerate(packs.sources) if name in sources])
        offsets, found = packs.arrays["row_offsets"], []
        for first in range(0, packs.rows, _BLOCK_ROWS):
            block = np.asarray(offsets[first : first + _BLOCK_ROWS + 1])
            hit = wanted[packs.arrays["source_ids"][block[0] : block[-1]]]
            found.append(np.logical_or.reduceat(hit, block[:-1] - block[0]))
        places = np.flatnonzero(np.concatenate(found))
    return _draw(places, n, random.Random(seed))


def check_names(what: str, names: Collection[str], known: Collection[str]) -> None:
    """BadInput for a name that is none of the known."""
    for name in names:
        if name not in known:
            raise BadInput(f"There is no {what} '{name}' here.{nearest(name, sorted(known))}")


def _draw(places: NDArray[np.int64], n: int, draw: random.Random) -> list[int]:
    """`n` of the places, ascending."""
    return sorted(int(places[i]) for i in draw.sample(range(len(places)), min(n, len(places))))


def _places(folder: Path, part: str, wanted: Mapping[str, Collection[str]]) -> NDArray[np.int64]:
    """Numbers of the rows of a part whose columns hold one of the wanted values each; no values: any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [name for name, values in wanted.items() if values]
    if not columns:
        return np.arange(part_rows(folder, part))
    found, start = [np.zeros(0, np.int64)], 0
    for batch in part_batches(folder, part, columns, 65_536):
        hit = np.ones(batch.num_rows, np.bool_)
        for name in columns:
            values = pa.array(sorted(wanted[name]), pa.string())
            hit &= pc.is_in(batch.column(name), value_set=values).to_numpy(zero_copy_only=False)
        found.append(np.flatnonzero(hit) + start)
        start += batch.num_rows
    return np.concatenate(found)


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
    return list(_rows_at(folder, part, _places(folder, part, {"id": ids}).tolist()))


def _texts_of(folder: Path, ids: Collection[str]) -> dict[str, Json]:
    """Id -> {"id", "source", "text"} of the examples, kept or held out, that have these ids."""
    return {
        row["id"]: {"id": row["id"], "source": row["source"], "text": "".join(t["text"] for t in row["turns"])}
        for part in ("examples", "held_out")
        for row in rows_of(folder, part, ids)
    }

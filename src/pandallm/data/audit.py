"""Adding a packs folder up again: the token ledger from the arrays alone."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.pack_files import check_identity, new_parts
from pandallm.data.packs import Packs
from pandallm.errors import PandaError

_BLOCK_ROWS_TOKENS = 1 << 22


def audit_packs(folder: Path) -> dict[str, Any]:
    """Add the token ledger of a packs folder up again from its arrays and examples.parquet; returns its pack.json.

    Tokens read and tokens that are ever targets are counted once for each example, however many copies of it are packed and however those
    are cut. Nothing of the ledger is trusted but `unique` and `truncated`, which no file holds; they must close the sum.

    Raises PandaError naming the source and the part where both differ, BadInput where a file is missing.
    """
    packs = Packs.open(folder)
    ledger, names = packs.facts["ledger"], packs.sources
    owner, tokens, trained_tokens, begins = _examples(packs)
    seen = _scan(packs, len(tokens))
    _same(folder, "examples.parquet, tokens of an example", tokens, seen["entry_tokens"])
    _same(folder, "examples.parquet, trained_tokens of an example", trained_tokens, seen["entry_trained"])
    _same(folder, "row_trained_tokens", packs.arrays["row_trained_tokens"], seen["row_trained"])

    # Tokens of all copies of an example share one stretch of places: its first token's is `base`.
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    example_source = seen["entry_source"][first]
    base = (np.cumsum(tokens[first]) - tokens[first])[owner]
    start = base[seen["entry"]] + _segment_begins(folder, begins, seen["entry"])
    read = seen["times"] > 0
    source = seen["entry_source"][seen["entry"]]

    def count(of: NDArray[Any], amounts: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(of, amounts, len(names)).astype(np.int64)

    order, a, b = new_parts(start[read], (start + seen["length"])[read])
    reads = count(source[read][order], b - a)
    owner_of_run = np.repeat(np.arange(len(start)), seen["runs"])
    run_read = read[owner_of_run]
    run_start = (start[owner_of_run] + seen["run_begin"])[run_read]
    order, a, b = new_parts(run_start, run_start + seen["run_length"][run_read])
    trained = count(source[owner_of_run][run_read][order], b - a)
    found = {
        "trained": trained,
        "masked": reads - trained,
        "exposures": count(source, seen["length"] * seen["times"]),
        "trained_exposures": count(source, seen["targets"] * seen["times"]),
    }
    packed = count(example_source, tokens[first])
    for part, values in [*found.items(), ("share", found["exposures"] / max(1, found["exposures"].sum()))]:
        for name, value in [*zip(names, values.tolist(), strict=True), ("all sources", values.sum().item())]:
            entry = ledger["total"] if name == "all sources" else ledger["sources"][name]
            if abs(entry[part] - value) > 1e-9:
                raise PandaError(
                    f"{folder}: source {name}, {part}: the ledger says {entry[part]}, the arrays hold {value}; pack the corpus again."
                )
    check_identity([*ledger["sources"].items(), ("all sources", ledger["total"])])
    for name, least in zip(names, (packed - reads).tolist(), strict=True):
        if (said := ledger["sources"][name]["over_budget"]) < least:
            raise PandaError(
                f"{folder}: source {name}, over_budget: the ledger says {said}, but {least} packed tokens are never read; pack the corpus again."
            )
    return dict(packs.facts)


def _examples(packs: Packs) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of the packed examples: which are copies of one (numbered), tokens, trained tokens; where the pieces of cut ones begin, laid end to
    end."""
    import pyarrow.parquet as pq

    columns: dict[str, list[NDArray[Any]]] = {
        name: [np.zeros(0, np.int64)] for name in ("copy", "tokens", "trained_tokens")
    }
    begins = [np.zeros(0, np.int64)]
    with pq.ParquetFile(packs.folder / "examples.parquet") as file:
        for batch in file.iter_batches(65_536, columns=[*columns, "begins"]):
            for name, parts in columns.items():
                parts.append(batch.column(name).to_numpy())
            begins.append(batch.column("begins").flatten().to_numpy().astype(np.int64))
    copy, tokens, trained = (np.concatenate(parts) for parts in columns.values())
    return np.cumsum(copy == 0) - 1, tokens, trained, np.concatenate(begins)


def _segment_begins(folder: Path, begins: NDArray[np.int64], entry: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in its example each stored stretch begins: 0, or for a cut one as examples.parquet says, in the order of storing."""
    result = np.zeros(len(entry), np.int64)
    cut = np.flatnonzero(np.bincount(entry)[entry] > 1) if len(entry) else entry
    if len(cut) != len(begins):
        raise PandaError(
            f"{folder}: examples.parquet tells of {len(begins)} pieces of cut examples, the arrays hold {len(cut)}; pack the corpus again."
        )
    result[cut[np.argsort(entry[cut], kind="stable")]] = begins
    return result


def _scan(packs: Packs, entries: int) -> dict[str, NDArray[Any]]:
    """One pass over the arrays: per row, per stored stretch of an example (segment), per packed example (entry)."""
    arrays, offsets = packs.arrays, packs.arrays["row_offsets"]
    sizes = np.diff(offsets)
    if len(sizes) and (sizes.min() < 1 or sizes.max() > packs.sequence_length):
        raise PandaError(f"{packs.folder}: a row is empty or longer than sequence_length; pack the corpus again.")
    for name in ("input_ids", "loss_mask", "example_ids", "source_ids"):
        if len(arrays[name]) != offsets[-1]:
            raise PandaError(f"{packs.folder}: {name} holds {len(arrays[name])} tokens, the rows {offsets[-1]}.")
    times = np.bincount(arrays["order"], minlength=packs.rows)
    out: dict[str, list[NDArray[Any]]] = {
        k: [] for k in ("row_trained", "entry", "length", "times", "targets", "runs", "run_begin", "run_length")
    }
    entry_source = np.zeros(entries, np.int64)
    first = 0
    while first < packs.rows:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK_ROWS_TOKENS, "right")) - 1
        last = max(first + 1, last)
        span = slice(int(offsets[first]), int(offsets[last]))
        entry, mask = np.asarray(arrays["example_ids"][span]), np.asarray(arrays["loss_mask"][span])
        rows = (np.asarray(offsets[first:last]) - span.start).astype(np.int64)
        begin = np.union1d(np.flatnonzero(np.diff(entry, prepend=-1)), rows)
        out["row_trained"].append(np.add.reduceat(mask, rows, dtype=np.int64))
        out["entry"].append(entry[begin].astype(np.int64))
        out["length"].append(np.diff(np.append(begin, len(entry))))
        out["times"].append(times[first + np.searchsorted(rows, begin, "right") - 1])
        out["targets"].append(np.add.reduceat(mask, begin, dtype=np.int64))
        # Runs of targets; a segment never begins with one, so that no run crosses into the next.
        if mask[begin].any():
            raise PandaError(f"{packs.folder}: the first token of an example is a target; pack the corpus again.")
        edges = np.flatnonzero(np.diff(mask, prepend=0, append=0))
        starts, ends = edges[::2], edges[1::2]
        segment = np.searchsorted(begin, starts, "right") - 1
        out["runs"].append(np.bincount(segment, minlength=len(begin)))
        out["run_begin"].append(starts - begin[segment])
        out["run_length"].append(ends - starts)
        entry_source[entry[begin]] = arrays["source_ids"][span][begin]
        first = last
    seen = {k: np.concatenate(v) if v else np.zeros(0, np.int64) for k, v in out.items()}
    seen["entry_source"] = entry_source
    seen["entry_tokens"] = np.bincount(seen["entry"], seen["length"], entries).astype(np.int64)
    seen["entry_trained"] = np.bincount(seen["entry"], seen["targets"], entries).astype(np.int64)
    return seen


def _same(folder: Path, what: str, said: NDArray[Any], found: NDArray[Any]) -> None:
    if len(said) != len(found) or (differ := np.flatnonzero(said != found)).size:
        at = int(differ[0]) if len(said) == len(found) else min(len(said), len(found))
        raise PandaError(f"{folder}: {what} differs from the arrays, first at number {at}; pack the corpus again.")

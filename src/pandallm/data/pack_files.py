"""Writing a packs folder: arrays streamed to their files, the packed examples, and the token ledger."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.rows import Segments
from pandallm.data.tokens import TokenizedCorpus
from pandallm.errors import PandaError
from pandallm.progress import SILENT, Progress

#: Tokens in hand at a time.
GATHER_TOKENS = 1 << 21
ROW_GROUP = 1 << 17


@dataclass(frozen=True)
class Selection:
    """What goes into the packs. lengths: (examples,), tokens of each example that fit. copies: (examples,), how often it is packed.
    entries: the examples' numbers, one per copy. order: rows as training reads them."""

    lengths: NDArray[np.int32]
    copies: NDArray[np.int64]
    entries: NDArray[np.int32]
    segments: Segments
    order: NDArray[np.int32]


class _ArrayFile:
    """A one-dimensional .npy file, written piece by piece and then named; sequential, so that no written page stays mapped."""

    def __init__(self, path: Path, dtype: Any, length: int) -> None:
        self.path, self._dtype = path, np.dtype(dtype)
        self._part = path.with_name(f".{path.name}.part")
        self._file = open(self._part, "wb")  # noqa: SIM115 (closed in close)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, values: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)

    def close(self) -> None:
        """Make the file durable and visible."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self.path)


def write_packs(corpus: TokenizedCorpus, chosen: Selection, out: Path, progress: Progress = SILENT) -> dict[str, Any]:
    """Write the arrays and examples.parquet; return the token ledger."""
    segments, entries = chosen.segments, chosen.entries
    example = entries[segments.entry]
    starts = corpus.offsets[example] + segments.begin
    ends = starts + segments.length
    targets = corpus.trained_up_to(ends) - corpus.trained_up_to(starts + 1)  # nothing predicts the first token
    places = np.concatenate([[0], np.cumsum(segments.length, dtype=np.int64)])
    total = int(places[-1])
    shapes = {"input_ids": corpus.dtype, "loss_mask": np.uint8, "example_ids": np.int32, "source_ids": np.uint8}
    files = {name: _ArrayFile(out / f"{name}.npy", dtype, total) for name, dtype in shapes.items()}
    first = 0
    with progress.task("pack", total, "tokens") as shown:
        while first < len(starts):
            last = max(first + 1, int(np.searchsorted(places, places[first] + GATHER_TOKENS, "right")) - 1)
            part = slice(first, last)
            sizes = segments.length[part]
            mask = corpus.trained_flags(starts[part], sizes)
            mask[places[part] - places[first]] = False
            files["input_ids"].write(corpus.read(starts[part], sizes))
            files["loss_mask"].write(mask)
            files["example_ids"].write(np.repeat(segments.entry[part], sizes))
            files["source_ids"].write(np.repeat(corpus.sources[example[part]].astype(np.uint8), sizes))
            shown.advance(int(places[last] - places[first]))
            first = last
    for file in files.values():
        file.close()
    small: dict[str, tuple[Any, NDArray[Any]]] = {
        "row_offsets": (np.int64, np.append(places[np.flatnonzero(np.diff(segments.row, prepend=-1))], total)),
        "row_trained_tokens": (np.int32, np.bincount(segments.row, targets, segments.rows)),
        "order": (np.int32, chosen.order),
    }
    for name, (dtype, values) in small.items():
        file = _ArrayFile(out / f"{name}.npy", dtype, len(values))
        file.write(values.astype(dtype))
        file.close()
    del ends, places, small  # as large as the corpus has examples
    _write_examples(corpus, chosen, targets, out)
    return _ledger(corpus, chosen, example, starts, targets)


def _write_examples(corpus: TokenizedCorpus, chosen: Selection, targets: NDArray[np.int64], out: Path) -> None:
    """examples.parquet, a shard of tokens at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    segments, copies = chosen.segments, chosen.copies
    trained = np.bincount(segments.entry, targets, len(chosen.entries)).astype(np.int64)
    pieces = np.bincount(segments.entry, minlength=len(chosen.entries)).astype(np.int32)
    # Where the pieces of a cut entry begin, in the order in which they are stored.
    cut = np.flatnonzero(pieces[segments.entry] > 1)
    begins = segments.begin[cut[np.argsort(segments.entry[cut], kind="stable")]]
    begins_at = np.concatenate([[0], np.cumsum(np.where(pieces > 1, pieces, 0))])
    entry_at = np.concatenate([[0], np.cumsum(copies)])
    text = ("id", "source", "language")
    numbers = {"tokens": pa.int64(), "trained_tokens": pa.int64(), "utf8_bytes": pa.int64(), "copy": pa.int32()}
    fields = [*((name, pa.string()) for name in text), *numbers.items(), ("begins", pa.list_(pa.int32()))]
    schema = pa.schema(fields)
    part = out / ".examples.parquet.part"
    start = 0
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for count, table in zip(corpus.shard_examples, corpus.tables(), strict=True):
            shard = slice(start, start + count)
            rows = np.repeat(np.arange(count), copies[shard])
            span = slice(int(entry_at[start]), int(entry_at[start + count]))
            at = begins_at[span.start : span.stop + 1]
            columns = {
                **{name: table.column(name).take(pa.array(rows)) for name in text},
                "tokens": chosen.lengths[shard][rows],
                "trained_tokens": trained[span],
                "utf8_bytes": table.column("utf8_bytes").to_numpy()[rows],
                "copy": np.arange(span.start, span.stop) - entry_at[start + rows],
                "begins": pa.ListArray.from_arrays(
                    pa.array(at - at[0], pa.int32()), pa.array(begins[at[0] : at[-1]]), mask=pa.array(pieces[span] <= 1)
                ),
            }
            arrays = [pa.array(v, f.type) if isinstance(v := columns[f.name], np.ndarray) else v for f in schema]
            if len(rows):
                writer.write_table(pa.table(arrays, schema=schema), row_group_size=ROW_GROUP)
            start += count
    os.replace(part, out / "examples.parquet")


def new_parts(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What each of these intervals adds to the union of all, itself an interval: the order in which they were gone through, and the
    starts and ends of what each added (equal where it added nothing)."""
    order = np.argsort(starts, kind="stable")
    begin, end = starts[order], ends[order]
    reached = np.concatenate([[0], np.maximum.accumulate(end)[:-1]]) if len(end) else end
    begin = np.maximum(begin, reached)
    return order, begin, np.maximum(begin, end)


def _ledger(
    corpus: TokenizedCorpus,
    chosen: Selection,
    example: NDArray[np.int32],
    starts: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> dict[str, Any]:
    """unique = trained + masked + truncated + over_budget, in tokens; a token that is ever a target counts as trained."""
    names, segments = corpus.source_names, chosen.segments
    times = np.bincount(chosen.order, minlength=segments.rows)[segments.row]

    def by_source(sources: NDArray[np.uint16], tokens: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(sources, tokens, len(names)).astype(np.int64)

    source = corpus.sources[example]
    # An example in one piece needs no union; the rest are copies and pieces, which may share tokens.
    alone = (np.bincount(example, minlength=len(corpus.sources)) == 1)[example]
    once = alone & (times > 0)
    reads, trained = by_source(source, segments.length * once), by_source(source, targets * once)
    several = np.flatnonzero(~alone & (times > 0))
    begin, end = starts[several], starts[several] + segments.length[several]
    order, a, b = new_parts(begin, end)
    reads += by_source(source[several[order]], b - a)
    order, a, b = new_parts(begin + 1, end)
    trained += by_source(source[several[order]], corpus.trained_up_to(b) - corpus.trained_up_to(a))
    fitted = by_source(corpus.sources, chosen.lengths)
    unique = by_source(corpus.sources, corpus.lengths)
    parts = {
        "unique": unique,
        "trained": trained,
        "masked": reads - trained,
        "truncated": unique - fitted,
        "over_budget": fitted - reads,
        "exposures": by_source(source, segments.length * times),
        "trained_exposures": by_source(source, targets * times),
    }
    entries: list[dict[str, Any]] = [{part: int(v[i]) for part, v in parts.items()} for i in range(len(names))]
    total: dict[str, Any] = {part: int(values.sum()) for part, values in parts.items()}
    check_identity([*zip(names, entries, strict=True), ("all sources", total)])
    below = [corpus.below_quality[name] for name in names]
    for entry, cut in zip(entries, below, strict=True):
        entry["below_quality"] = cut
    total["below_quality"] = {unit: sum(cut[unit] for cut in below) for unit in ("examples", "bytes")}
    for entry in (*entries, total):
        entry["passes"] = entry["exposures"] / entry["unique"] if entry["unique"] else 0.0
        entry["share"] = entry["exposures"] / total["exposures"] if total["exposures"] else 0.0
    return {"sources": dict(zip(names, entries, strict=True)), "total": total}


def check_identity(entries: list[tuple[str, dict[str, Any]]]) -> None:
    """Raise PandaError where unique tokens are not trained + masked + truncated + over budget, or one of them is negative."""
    for name, entry in entries:
        parts = [entry[p] for p in ("trained", "masked", "truncated", "over_budget")]
        if entry["unique"] != sum(parts) or min(parts) < 0:
            raise PandaError(f"The token ledger of {name} does not add up: {entry}.")

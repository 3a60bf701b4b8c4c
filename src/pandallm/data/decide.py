"""The reduce between the two maps: duplicates, held-out documents and ids, decided over the keys of all shards.

Memory holds about 60 bytes a row and one band of the MinHash keys; no text.
"""

import mmap
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.clean_shard import ID_BYTES
from pandallm.data.dedup import exact_duplicates, near_duplicates
from pandallm.data.shards import Shard, ShardStore
from pandallm.data.spec import CorpusSpec, MinhashDedup, NoDedup
from pandallm.errors import BadInput
from pandallm.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

#: What becomes of a passed row.
KEPT, HELD_OUT, DUPLICATE, CONTAMINATED = range(4)

#: Files of shards held open at once: a process may open about 1,000.
_OPEN_SHARDS = 200


def decide(name: str, spec: CorpusSpec, shards: Sequence[Shard], store: ShardStore, progress: Progress) -> None:
    """Write `decisions/` of the shards: what becomes of each passed row. What is decided already is not decided again.

    Raises BadInput where held-out documents would leave nothing of a source.
    """
    if store.decisions.is_dir():
        return
    keys = _Keys(spec, shards, store)
    duplicate_of = _duplicates(spec, keys, progress)
    fates = np.full(keys.passed, KEPT, np.uint8)
    fates[duplicate_of != np.arange(keys.passed)] = DUPLICATE
    fates[~keys.clean] = CONTAMINATED
    fates[_hold_out(name, spec, keys, fates == KEPT)] = HELD_OUT
    with store.commit(store.decisions) as folder:
        for shard, decisions in zip(shards, _per_shard(keys, fates, duplicate_of), strict=True):
            np.savez(folder / f"{shard.name}.npz", **decisions)


class _Keys:
    """The keys of all shards. passed: number of passed rows, clean: (passed,) whether they may be kept at all."""

    def __init__(self, spec: CorpusSpec, shards: Sequence[Shard], store: ShardStore) -> None:
        self.folders = [store.shard(s) for s in shards]
        facts = [store.facts(s) for s in shards]
        sizes = np.array([f["passed"] for f in facts], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.row_starts = np.concatenate([[0], np.cumsum([f["rows"] for f in facts])]).astype(np.int64)
        self.passed = int(self.starts[-1])
        numbers = {source: i for i, source in enumerate(spec.sources)}
        self.sources = np.repeat([numbers[s.source] for s in shards], sizes).astype(np.int32)
        self.content = np.concatenate([np.load(f / "content.npy") for f in self.folders])
        self.ids = np.concatenate([np.load(f / "ids.npy") for f in self.folders])
        rows = [np.load(f / "rows.npy") + start for f, start in zip(self.folders, self.row_starts, strict=False)]
        self.rows = np.concatenate(rows)
        self.clean = np.ones(self.passed, np.bool_)
        if spec.decontaminate and spec.decontaminate.action == "drop":
            for folder, start in zip(self.folders, self.starts.tolist(), strict=False):
                self.clean[np.load(folder / "hits.npy") + start] = False

    def band(self, number: int) -> NDArray[np.uint64]:
        """One band of the MinHash keys of all passed rows: (passed,)."""
        parts = [np.load(f / "bands.npy", mmap_mode="r") for f in self.folders]
        return np.concatenate([np.zeros(0, np.uint64), *(p[number] for p in parts if p.size)])


def _duplicates(spec: CorpusSpec, keys: _Keys, progress: Progress) -> NDArray[np.int64]:
    """For each passed row the kept row that it repeats, else itself: (passed,). Contaminated rows take no part."""
    duplicate_of = np.arange(keys.passed)
    if isinstance(spec.dedup, NoDedup):
        return duplicate_of
    where = np.flatnonzero(keys.clean)
    representative = exact_duplicates(keys.content[where])
    if isinstance(spec.dedup, MinhashDedup):
        with _Texts([f / "passed.arrow" for f in keys.folders], keys.starts) as texts:
            representative = near_duplicates(
                lambda number: keys.band(number)[where],
                representative,
                lambda i: texts[int(where[i])],
                spec.dedup,
                progress,
            )
    duplicate_of[where] = where[representative]
    return duplicate_of


def _hold_out(name: str, spec: CorpusSpec, keys: _Keys, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows are held out: (passed,). Per source the documents of the lowest content hashes, with all copies."""
    held = np.zeros(keys.passed, np.bool_)
    ranks = keys.content.view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
    chosen: list[NDArray[np.uint64]] = []
    for i, (source, s) in enumerate(spec.sources.items()):
        wanted = spec.held_out if s.held_out is None else s.held_out
        if not (wanted.documents or wanted.share):
            continue
        distinct = np.unique(ranks[free & (keys.sources == i)])
        by_share = round(wanted.share * len(distinct))
        count = max(wanted.documents, by_share)
        if 0 < len(distinct) <= count:
            where = f"corpora.{name}.held_out" if s.held_out is None else f"corpora.{name}.sources.{source}.held_out"
            what, value = ("share", wanted.share) if by_share > wanted.documents else ("documents", count)
            raise BadInput(
                f"{where}.{what}: {value} would leave nothing of source {source}, which has {len(distinct)} documents "
                "after cleaning; lower it."
            )
        chosen.append(distinct[:count])
    if chosen:
        # Across sources: where dedup is off, a copy in another source must not be trained on.
        held[free] = np.isin(ranks[free], np.concatenate(chosen))
    return held


def id_ranks(digests: NDArray[np.void]) -> NDArray[np.int64]:
    """How many equal digests stand before each: (rows,). The second copy of a record gets 1."""
    parts = digests.view(np.uint8).reshape(-1, ID_BYTES)
    low = parts[:, :8].copy().view(np.uint64).ravel()
    high = parts[:, 8:].copy().view(np.uint32).ravel()
    order = np.lexsort((high, low))  # stable: equal ones stay in order
    low, high = low[order], high[order]
    changes = (
        np.concatenate([[True], (low[1:] != low[:-1]) | (high[1:] != high[:-1])]) if len(low) else np.zeros(0, bool)
    )
    starts = np.flatnonzero(changes)
    ranks = np.empty(len(digests), np.int64)
    ranks[order] = np.arange(len(digests)) - np.repeat(starts, np.diff([*starts.tolist(), len(digests)]))
    return ranks


def example_id(digest: bytes, rank: int) -> str:
    """The id of an example; the second copy of a record gets `-2`, and so on."""
    return f"{digest.hex()}-{rank + 1}" if rank else digest.hex()


def _per_shard(keys: _Keys, fates: NDArray[np.uint8], duplicate_of: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """fates: (passed,). copies: row numbers of later copies of a record, copy_ranks: which copy. partners: ids of the kept rows
    that the shard's duplicates repeat, in their order."""
    ranks = id_ranks(keys.ids)
    for i in range(len(keys.folders)):
        passed = slice(keys.starts[i], keys.starts[i + 1])
        mine = ranks[keys.row_starts[i] : keys.row_starts[i + 1]]
        copies = np.flatnonzero(mine)
        partners = keys.rows[duplicate_of[passed][fates[passed] == DUPLICATE]]
        ids = [example_id(keys.ids[r].tobytes(), int(ranks[r])).encode() for r in partners.tolist()]
        yield {
            "fates": fates[passed],
            "copies": copies,
            "copy_ranks": mine[copies],
            "partners": np.array(ids, np.bytes_),
        }


class _Texts:
    """The texts of passed rows, by number, read from the shards' files one by one."""

    def __init__(self, files: Sequence[Path], starts: NDArray[np.int64]) -> None:
        self._files, self._starts = files, starts
        self._open: OrderedDict[int, _ShardTexts] = OrderedDict()

    def __enter__(self) -> "_Texts":
        return self

    def __exit__(self, *error: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def __getitem__(self, row: int) -> str:
        number = int(np.searchsorted(self._starts, row, "right")) - 1
        shard = self._open.pop(number, None) or _ShardTexts(self._files[number])
        self._open[number] = shard
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return shard[row - int(self._starts[number])]


class _ShardTexts:
    """Where each row's text lies in a shard's file: its turns stand there one after the other."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        begins, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        self._file = open(file, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        # Mapped only while the places are looked up: texts read through a map would count as this process's memory.
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        for first, last in _places(pa.py_buffer(mapped)):
            begins.append(first)
            ends.append(last)
        self._begins = np.concatenate(begins)
        self._lengths = (np.concatenate(ends) - self._begins).astype(np.int32)

    def __getitem__(self, row: int) -> str:
        self._file.seek(int(self._begins[row]))
        return self._file.read(int(self._lengths[row])).decode()

    def close(self) -> None:
        self._file.close()


def _places(file: "pa.Buffer") -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each batch of an uncompressed Arrow file, the offsets in the file at which the text of each row begins and ends."""
    import pyarrow as pa

    reader = pa.ipc.open_file(file)
    for i in range(reader.num_record_batches):
        turns = reader.get_batch(i).column("turns")
        if not len(turns):
            continue
        texts = turns.values.field("text")
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)[: len(texts) + 1].astype(np.int64)[turns.offsets.to_numpy()]
        ends += data.address - file.address
        yield ends[:-1], ends[1:]

"""Losses by source and language: packs whose rows carry, instead of the source, the pair of source and language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.packs import PackedRow, Packs
from pandallm.errors import BadInput


@dataclass(frozen=True)
class GroupedPacks(Packs):
    """Packs whose `source_ids` are ids of groups, and whose `sources` are the groups' labels.

    groups: (source, language) of each. group_of_example: (examples,) uint8 or uint16. mean_context: mean length, in tokens, of
    the piece of an example that a token stands in, over all stored tokens.
    """

    groups: tuple[tuple[str, str], ...] = ()
    group_of_example: "NDArray[Any] | None" = None
    mean_context: float = 0.0

    @property
    def sources(self) -> list[str]:
        """One label a group; what `source_ids` index."""
        return [f"{source}/{language}" for source, language in self.groups]

    def row(self, i: int) -> PackedRow:
        """Row i of the stored rows; `source_ids` are group ids."""
        row = super().row(i)
        assert self.group_of_example is not None
        return PackedRow(row.input_ids, row.loss_mask, row.example_ids, self.group_of_example[row.example_ids])


def group_packs(packs: Packs) -> GroupedPacks:
    """The packs with groups from examples.parquet: two bytes of memory an example.

    Raises BadInput where the table names a source that pack.json does not.
    """
    import pyarrow.parquet as pq

    order = {name: i for i, name in enumerate(packs.sources)}
    seen: dict[tuple[str, str], int] = {}
    parts: list[NDArray[Any]] = []
    tokens = squares = 0.0
    longest = packs.sequence_length
    with pq.ParquetFile(packs.folder / "examples.parquet") as file:
        for batch in file.iter_batches(1 << 16, columns=["source", "language", "tokens"]):
            source, language = (batch.column(n).dictionary_encode() for n in ("source", "language"))
            names = [(str(s or ""), str(g or "")) for s in _values(source) for g in _values(language)]
            pairs = _codes(source) * len(_values(language)) + _codes(language)
            used, inverse = np.unique(pairs, return_inverse=True)
            numbers = [seen.setdefault(names[u], len(seen)) for u in used.tolist()]
            parts.append(np.array(numbers, np.uint16)[inverse])
            length = batch.column("tokens").to_numpy(zero_copy_only=False).astype(np.float64)
            whole, rest = np.divmod(length, longest)  # a text longer than a row is cut into pieces
            tokens += float(length.sum())
            squares += float((whole * longest**2 + rest**2).sum())
    if unknown := [s for s, _ in seen if s not in order]:
        raise BadInput(
            f"{packs.folder / 'examples.parquet'} names source {unknown[0]}, pack.json does not; pack the corpus again."
        )
    groups = sorted(seen, key=lambda g: (order[g[0]], g[1]))
    renumber = np.zeros(max(1, len(seen)), np.uint16)
    for number, group in enumerate(groups):
        renumber[seen[group]] = number
    by_example = renumber[np.concatenate(parts)] if parts else np.zeros(0, np.uint16)
    if len(groups) <= 256:
        by_example = by_example.astype(np.uint8)
    return GroupedPacks(packs.folder, packs.facts, packs.arrays, tuple(groups), by_example, squares / max(1.0, tokens))


def _values(encoded: Any) -> list[Any]:
    """The dictionary, with a last entry for what is null."""
    return [*encoded.dictionary.to_pylist(), None]


def _codes(encoded: Any) -> NDArray[np.int64]:
    indices = encoded.indices.fill_null(len(encoded.dictionary))
    return np.asarray(indices.to_numpy(zero_copy_only=False)).astype(np.int64)


def merge(groups: tuple[tuple[str, str], ...], which: int, amounts: Sequence[float]) -> dict[str, float]:
    """Amounts of groups summed by source (`which` 0) or language (1), in the order of their first group."""
    summed: dict[str, float] = {}
    for group, amount in zip(groups, amounts, strict=True):
        summed[group[which]] = summed.get(group[which], 0) + amount
    return summed

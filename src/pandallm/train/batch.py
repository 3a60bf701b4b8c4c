"""From packed rows to micro-batches: flat, without padding, targets picked out.

Shapes: N tokens, M trained tokens.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pandallm.model.packed import PackedLayout, packed_layout


@dataclass(frozen=True)
class MicroBatch:
    """What one forward needs. `predictors_M`: flat position whose hidden state predicts `targets_M`."""

    input_ids_1N: Tensor
    layout: PackedLayout
    predictors_M: Tensor
    targets_M: Tensor
    source_ids_M: Tensor
    trained_by_source: np.ndarray[Any, Any]  # int64, per source, on the host
    example_ids: tuple[int, ...]  # in the packs' examples.parquet

    @property
    def tokens(self) -> int:
        return self.input_ids_1N.shape[1]

    @property
    def trained_tokens(self) -> int:
        return int(self.trained_by_source.sum())


def group_rows(lengths: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """Cut rows 0 .. len - 1 into consecutive groups of at most `micro_batch_tokens` tokens, never empty.

    Rows are laid flat, so that nothing is padded and sorting them by length would gain nothing.
    """
    groups: list[list[int]] = []
    room = 0
    for row, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = micro_batch_tokens
        groups[-1].append(row)
        room -= length
    return groups


def split_examples(example_ids: np.ndarray[Any, Any]) -> list[slice]:
    """The examples of one row: a new id starts a new one."""
    edges = [0, *(np.flatnonzero(np.diff(example_ids)) + 1).tolist(), len(example_ids)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def micro_batch(rows: Iterable[Any], sources: int, device: torch.device | str = "cpu") -> MicroBatch:
    """Lay packed rows (`PackedRow`) one after the other.

    A token is trained when its mask says so and a token of its own example stands before it: the first of an example
    (or of the part of one that a row continues) has nothing to be predicted from.
    """
    rows = list(rows)
    ids_N = np.concatenate([np.asarray(r.input_ids) for r in rows]).astype(np.int64)
    mask_N = np.concatenate([np.asarray(r.loss_mask) for r in rows]) != 0
    sources_N = np.concatenate([np.asarray(r.source_ids) for r in rows]).astype(np.int64)
    lengths = [s.stop - s.start for r in rows for s in split_examples(np.asarray(r.example_ids))]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    mask_N[starts] = False
    targets_at = np.flatnonzero(mask_N)
    return MicroBatch(
        torch.from_numpy(ids_N)[None].to(device),
        packed_layout(lengths, device),
        torch.from_numpy(targets_at - 1).to(device),
        torch.from_numpy(ids_N[targets_at]).to(device),
        torch.from_numpy(sources_N[targets_at]).to(device),
        np.bincount(sources_N[targets_at], minlength=sources),
        tuple(int(r.example_ids[s.start]) for r in rows for s in split_examples(np.asarray(r.example_ids))),
    )


def padded_batch(batch: MicroBatch, multiple: int, longest: int, slots: int) -> MicroBatch | None:
    """The same batch with its tokens filled up to a multiple of `multiple` and its examples to `slots`: static shapes.

    Fillers are examples of their own of at most `longest` tokens, which nothing reads. None where the examples, fillers
    included, are more than `slots`. Computed on the batch's device, which nothing waits for.
    """
    ids_1N, layout = batch.input_ids_1N, batch.layout
    tokens, device = ids_1N.shape[1], ids_1N.device
    fill = -tokens % multiple
    examples = len(layout.starts_E1) - 1
    if examples + -(-fill // longest) > slots:
        return None
    steps = torch.arange(1, slots - examples + 1, device=device, dtype=torch.int32)
    filled = PackedLayout(
        torch.cat([layout.starts_E1, (tokens + steps * longest).clamp_(max=tokens + fill)]),
        longest,
        torch.cat([layout.position_ids_1N, (torch.arange(fill, device=device) % longest)[None]], dim=1),
        layout.groups,
    )
    return replace(batch, input_ids_1N=torch.nn.functional.pad(ids_1N, (0, fill)), layout=filled)

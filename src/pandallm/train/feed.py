"""From packs to the micro-batches of a step, one step ahead of the loop."""

import dataclasses
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pandallm.train.batch import MicroBatch, group_rows, micro_batch, split_examples
from pandallm.train.world import World, deal_rows


@dataclass(frozen=True)
class Share:
    """One rank's part of a step, and what every rank knows of the whole step.

    Only the first `own` micro-batches count; the others are there so that all ranks go through sharded layers equally
    often, and their loss is multiplied by zero.
    """

    batches: list[MicroBatch]
    own: int
    trained_S: "np.ndarray[Any, Any]"  # trained tokens per source, of all ranks
    tokens: int  # of all ranks
    example_ids: tuple[int, ...]  # of all ranks

    @property
    def trained_tokens(self) -> int:
        return int(self.trained_S.sum())


def step_share(packs: Any, step: int, micro_batch_tokens: int, world: World) -> Share:
    """This rank's share of step `step` (0-based). Micro-batches without a trained token are left out."""
    rows = [packs.row(int(i)) for i in packs.rows_of_step(step)]
    sources = len(packs.sources)
    per_row = [_trained(row, sources) for row in rows]
    lengths = [len(r.input_ids) for r in rows]
    groups = [
        [[mine[i] for i in group] for group in group_rows([lengths[i] for i in mine], micro_batch_tokens)]
        for mine in deal_rows(lengths, world.size)
    ]
    useful = [[g for g in of_rank if any(per_row[i].any() for i in g)] for of_rank in groups]
    own = useful[world.rank]
    chosen = [[rows[i] for i in group] for group in own]
    if world.sharding != "replicate" and (missing := max(map(len, useful)) - len(own)):
        shortest = min((i for i in range(len(rows)) if per_row[i].any()), key=lambda i: (lengths[i], i))
        chosen += [[rows[shortest]]] * missing
    return Share(
        [_on_device(micro_batch(group, sources), world.device) for group in chosen],
        len(own),
        sum(per_row, np.zeros(sources, dtype=np.int64)),
        sum(lengths),
        tuple(sorted({int(i) for row in rows for i in np.unique(row.example_ids)})),
    )


def _trained(row: Any, sources: int) -> "np.ndarray[Any, Any]":
    """Trained tokens of a row per source, by the rule of `micro_batch`."""
    mask = np.asarray(row.loss_mask) != 0
    mask[[s.start for s in split_examples(np.asarray(row.example_ids)) if s.start < len(mask)]] = False
    return np.bincount(np.asarray(row.source_ids)[mask], minlength=sources)


def _on_device(value: Any, device: Any) -> Any:
    """A copy of a (nested) dataclass with its tensors on `device`; onto a GPU from pinned memory, without waiting."""
    if device.type == "cpu":
        return value
    if isinstance(value, torch.Tensor):
        return value.pin_memory().to(device, non_blocking=True)
    if isinstance(value, tuple):
        return tuple(_on_device(v, device) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: _on_device(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **moved)
    return value


def _use(device: Any) -> None:
    # Which GPU is the current one is each thread's own affair; plain `cuda` is the first, every thread's default.
    if device.type == "cuda" and device.index is not None:  # not run on several GPUs yet
        torch.cuda.set_device(device)


def shares(packs: Any, first: int, micro_batch_tokens: int, world: World) -> Generator[Share, None, None]:
    """The shares of step `first` and all that follow; the next one is made in a thread while a step is computed."""
    with ThreadPoolExecutor(1, thread_name_prefix="feed", initializer=_use, initargs=(world.device,)) as pool:

        def ahead(step: int) -> "Future[Share] | None":
            return pool.submit(step_share, packs, step, micro_batch_tokens, world) if step < packs.steps else None

        coming = ahead(first)
        step = first
        while coming is not None:
            share = coming.result()
            step += 1
            coming = ahead(step)
            yield share

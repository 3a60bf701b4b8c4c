"""From packs to the micro-batches of a step."""

from typing import Any

from pandallm.train.batch import MicroBatch, group_rows, micro_batch
from pandallm.train.world import World


def step_batches(packs: Any, step: int, micro_batch_tokens: int, world: World) -> list[MicroBatch]:
    """This rank's micro-batches of step `step` (0-based)."""
    rows = [packs.row(int(i)) for i in packs.rows_of_step(step)]
    groups = group_rows([len(r.input_ids) for r in rows], micro_batch_tokens)
    sources = len(packs.sources)
    return [micro_batch([rows[i] for i in group], sources, world.device) for group in groups]

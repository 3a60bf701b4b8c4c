"""One optimizer step: forward and backward over micro-batches, clip, update. Nothing here waits for the device."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pandallm.train.feed import Share
from pandallm.train.forward import Forward
from pandallm.train.loss import add_by_source
from pandallm.train.world import World


@dataclass(frozen=True)
class StepNumbers:
    """What a step tells; tensors are still on the device."""

    step: int  # 1-based
    lr: float
    sums_S: Tensor  # float64, nats, per source; summed over ranks
    norm: Tensor  # of the whole gradient, before clipping
    trained_S: "np.ndarray[Any, Any]"  # trained tokens per source, of all ranks
    tokens: int  # of all ranks
    example_ids: tuple[int, ...]  # of all ranks
    began: float  # time.monotonic()


def optimizer_step(
    forward: Forward,
    optimizer: Any,
    share: Share,
    world: World,
    *,
    step: int,
    lr: float,
    clip: float,
    sources: int,
    mask: Callable[[Any], None] = lambda model: None,
) -> StepNumbers:
    """`share` is this rank's part of the step. The loss is the mean over the trained tokens of the whole step.

    `mask` is called with the model before clipping: it sets gradients of what stays as it is to zero.
    """
    began = time.monotonic()
    model, device = forward.model, forward.device
    trained = share.trained_tokens
    sums_S = torch.zeros(sources, dtype=torch.float64, device=device)
    norm = torch.zeros((), device=device)
    forward.begin_step()
    last = len(share.batches) - 1
    for number, batch in enumerate(share.batches):
        filler = number >= share.own
        if world.sharding == "shard_gradients":
            model.base_model.set_reshard_after_backward(number == last)  # gathered once a step
        loss_sum, losses_M = forward(batch)
        (loss_sum * 0.0 if filler else loss_sum / trained).backward()
        if not filler:
            add_by_source(sums_S, losses_M, batch.source_ids_M)
    forward.end_step()
    if trained:
        world.sum_(sums_S)
        world.reduce_gradients(model.parameters())
        mask(model)
        norm = world.clip_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return StepNumbers(
        step,
        lr,
        sums_S,
        norm,
        share.trained_S,
        share.tokens,
        share.example_ids,
        began,
    )

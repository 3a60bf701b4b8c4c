"""One optimizer step: forward and backward over micro-batches, clip, update. Nothing here waits for the device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pandallm.train.batch import MicroBatch
from pandallm.train.forward import Forward
from pandallm.train.loss import add_by_source
from pandallm.train.world import World


@dataclass(frozen=True)
class StepNumbers:
    """What a step tells; tensors are still on the device, and of this rank alone unless said."""

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
    batches: Sequence[MicroBatch],
    world: World,
    *,
    step: int,
    lr: float,
    clip: float,
    sources: int,
    mask: Callable[[Any], None] = lambda model: None,
) -> StepNumbers:
    """`batches` are this rank's share of the step. The loss is the mean over the trained tokens of the whole step.

    `mask` is called with the model before clipping: it sets gradients of what stays as it is to zero.
    """
    began = time.monotonic()
    model, device = forward.model, forward.device
    trained_S = sum(b.trained_by_source for b in batches)
    trained = int(np.sum(trained_S))
    sums_S = torch.zeros(sources, dtype=torch.float64, device=device)
    norm = torch.zeros((), device=device)
    forward.begin_step()
    for batch in batches:
        if not batch.trained_tokens:
            continue
        loss_sum, losses_M = forward(batch)
        (loss_sum / trained).backward()
        add_by_source(sums_S, losses_M, batch.source_ids_M)
    forward.end_step()
    mask(model)
    if trained:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return StepNumbers(
        step,
        lr,
        sums_S,
        norm,
        np.asarray(trained_S),
        sum(b.tokens for b in batches),
        tuple(sorted({i for b in batches for i in b.example_ids})),
        began,
    )

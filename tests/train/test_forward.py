"""One micro-batch in bfloat16 on a CPU against float32."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pandallm.data.packs import PackedRow
from pandallm.model.folder import load_model
from pandallm.train.batch import micro_batch
from pandallm.train.forward import Forward


def test_bfloat16_loss_and_gradients_are_near_those_of_float32(base: Path) -> None:
    rng = np.random.default_rng(0)
    ids, examples = rng.integers(2, 200, 48).astype(np.uint16), np.repeat([0, 1, 2], [9, 25, 14]).astype(np.int32)
    row = PackedRow(ids, np.ones(48, np.uint8), examples, np.zeros(48, np.uint8))
    batch, losses, grads = micro_batch([row], sources=1), [], []
    for dtype in (torch.float32, torch.bfloat16):
        model: Any = load_model(base)
        forward = Forward(model, dtype)
        forward.begin_step()
        for _ in range(2):  # gradients of micro-batches add up
            loss, each_M = forward(batch)
            (loss / batch.trained_tokens).backward()
        forward.end_step()
        torch.testing.assert_close(each_M.sum(), loss.detach())
        losses.append(float(loss.detach()) / batch.trained_tokens)
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert 0 < abs(losses[1] - losses[0]) < 1e-2
    assert float((grads[1] - grads[0]).norm() / grads[0].norm()) < 2e-2

"""One micro-batch in bfloat16 on a CPU against float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pandallm.data.packs import PackedRow
from pandallm.model.folder import load_model
from pandallm.model.onednn import onednn_here
from pandallm.train.batch import micro_batch
from pandallm.train.forward import Forward
from tests.train.tiny import weights


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


@pytest.mark.skipif(not onednn_here(), reason="the processor has no AVX-512")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stage_through_onednn_comes_to_the_weights_of_plain_torch(
    stage: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    if method == "lora":
        pytest.importorskip("peft")
    found = []
    for layers in ("plain", "onednn"):
        facts = stage(layers, spec={"method": {"kind": method}}, variant={"layers": layers, "compiled": False})
        found.append((facts, weights(tmp_path / layers)))
    assert found[0][0]["final_loss"] == pytest.approx(found[1][0]["final_loss"], rel=1e-4)
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], tensor, atol=2e-4, rtol=1e-3, msg=name)

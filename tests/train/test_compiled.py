"""Compiled layers: the numbers of plain ones, and one compilation whatever the lengths."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from pandallm.data.packs import PackedRow
from pandallm.model.folder import load_model
from pandallm.train.batch import MicroBatch, micro_batch
from pandallm.train.compiled import CompiledLayers, compilations
from pandallm.train.forward import Forward
from pandallm.train.recompute import set_checkpointing
from tests.train.tiny import weights


def batches() -> list[MicroBatch]:
    rng = np.random.default_rng(0)
    made = []
    for lengths in ([9, 25, 14], [3, 3, 40], [50], [2] * 9):
        total = sum(lengths)
        examples = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
        ids = rng.integers(2, 200, total).astype(np.uint16)
        made.append(micro_batch([PackedRow(ids, np.ones(total, np.uint8), examples, np.zeros(total, np.uint8))], 1))
    return made


def losses_and_gradients(base: Path, compiled: bool, checkpointing: Literal["selective"] | bool) -> list[Any]:
    model: Any = load_model(base)
    model.train()
    set_checkpointing(model, checkpointing)
    variant = {"layers": "plain", "compiled": compiled}
    forward = Forward(model, torch.float32, variant, sequence_length=64, micro_batch_tokens=64)
    if forward.compiled:
        # Traced, differentiated and checked for recompilation as ever; only the C++ at the end is left out, which takes its time.
        forward.compiled.backend = "aot_eager"
    found, counts = [], []
    for batch in batches():
        model.zero_grad()
        forward.begin_step()
        loss, each_M = forward(batch)
        loss.backward()
        forward.end_step()
        found += [each_M, torch.cat([p.grad.flatten() for p in model.parameters()])]
        counts.append(compilations())
    if compiled:
        assert len(set(counts)) == 1  # none after the first micro-batch
        model.eval()
        forward.begin_step()
        with torch.no_grad():
            found.append(forward(batches()[0])[1])  # held-out text
        forward.end_step()
        torch.testing.assert_close(found[-1], found[0])
        assert not any(getattr(layer, "_compiled_call_impl", None) for layer in model.model.layers)
    return found


@pytest.mark.parametrize("checkpointing", [False, "selective"])
@pytest.mark.filterwarnings("ignore")
def test_same_losses_and_gradients_without_recompiling(base: Path, checkpointing: Literal["selective"] | bool) -> None:
    torch._dynamo.reset()
    plain = losses_and_gradients(base, False, checkpointing)
    before = compilations()
    fast = losses_and_gradients(base, True, checkpointing)
    assert compilations() > before
    for a, b in zip(fast, plain, strict=False):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


def test_another_model_is_compiled_again(base: Path) -> None:
    model: Any = load_model(base)
    layers = CompiledLayers(model, "eager")
    layers.install()
    first = model.model.layers[0]._compiled_call_impl
    layers.remove()
    layers.install()
    assert model.model.layers[0]._compiled_call_impl is first
    layers.remove()


@pytest.mark.filterwarnings("ignore")
def test_a_stage_by_compiled_layers_comes_to_the_same_weights(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandallm.train.forward.CompiledLayers", partial(CompiledLayers, backend="aot_eager"))
    few = {"steps": 4}
    stage("plain", spec=few | {"epochs": None})
    done = stage("compiled", spec=few | {"epochs": None, "variant": "compiled"})
    assert done["variant"] == {"layers": "plain", "compiled": True}
    plain = weights(tmp_path / "plain")
    for name, tensor in weights(tmp_path / "compiled").items():
        torch.testing.assert_close(tensor, plain[name], atol=2e-4, rtol=1e-3, msg=name)
    torch._dynamo.reset()

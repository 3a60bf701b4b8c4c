"""Gradient checkpointing keeps the gradients; the selective kind repeats no product."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pandallm.data.packs import PackedRow
from pandallm.model.folder import load_model
from pandallm.train.batch import MicroBatch, micro_batch
from pandallm.train.forward import Forward
from pandallm.train.recompute import set_checkpointing

KINDS: tuple[Literal["selective"] | bool, ...] = (False, True, "selective")


class Counted(TorchDispatchMode):
    """Counts products and silu."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.silus = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func in (torch.ops.aten.mm.default, torch.ops.mkldnn._linear_pointwise.default)
        self.silus += func is torch.ops.aten.silu.default
        return func(*args, **(kwargs or {}))


def batch() -> MicroBatch:
    rng = np.random.default_rng(0)
    ids, examples = rng.integers(2, 200, 48).astype(np.uint16), np.repeat([0, 1, 2], [9, 25, 14]).astype(np.int32)
    return micro_batch([PackedRow(ids, np.ones(48, np.uint8), examples, np.zeros(48, np.uint8))], sources=1)


@pytest.mark.parametrize(
    ("layers", "dtype"), [("plain", torch.float32), ("onednn", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_same_gradients_and_what_is_computed_again(base: Path, layers: str, dtype: torch.dtype) -> None:
    found, counts = [], {}
    for kind in KINDS:
        model: Any = load_model(base)
        model.train()
        set_checkpointing(model, kind)
        forward = Forward(model, dtype, {"layers": layers, "compiled": False})
        forward.begin_step()
        with Counted() as counted:
            loss, _ = forward(batch())
            loss.backward()
        forward.end_step()
        counts[kind] = counted.products, counted.silus
        found.append({n: p.grad for n, p in model.named_parameters()})
    for grads in found[1:]:
        for name, grad in found[0].items():
            torch.testing.assert_close(grads[name], grad, msg=name)
    products = counts[False][0]
    # Seven linear maps in each of two layers; torch stops before the last where nothing needs its result.
    assert 2 * 6 <= counts[True][0] - products <= 2 * 7
    assert counts[True][1] == 2 * 2
    assert counts["selective"] == (products, 2 * 2)

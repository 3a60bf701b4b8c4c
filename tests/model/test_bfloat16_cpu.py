"""The bfloat16 layers against float32 ones."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.model import bfloat16_cpu
from pandallm.model.bfloat16_cpu import Bfloat16Layers, BlockAttention
from pandallm.model.folder import load_model
from pandallm.model.packed import packed_hidden, packed_layout


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("heads", "keys"), [(6, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("block", [4, 256])
def test_block_attention_equals_the_fused_kernel_on_each_example(
    heads: int, keys: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bfloat16_cpu, "QUERY_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    edges = [0, 1, 10, 40]
    q, grad = (torch.randn(40, heads, 16, generator=generator) for _ in range(2))
    k, v = (torch.randn(40, keys, 16, generator=generator) for _ in range(2))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        mine = [x.detach().to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
        theirs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
        out = BlockAttention.apply(*mine, edges, 0.25)
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(x[a:b].transpose(0, 1)[None] for x in theirs), is_causal=True, scale=0.25, enable_gqa=True
            )[0].transpose(0, 1)
            for a, b in itertools.pairwise(edges)
        ]
        expected = torch.cat(parts)
        out.backward(grad.to(dtype))
        expected.backward(grad)
        assert relative(out, expected) < tolerance
        for a, b in zip(mine, theirs, strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert relative(a.grad, b.grad) < tolerance


def test_hidden_states_and_gradients_are_those_of_float32(model_folder: Path) -> None:
    model: Any = load_model(model_folder)
    generator = torch.Generator().manual_seed(0)
    ids, layout = torch.randint(2, 200, (1, 50), generator=generator), packed_layout([7, 30, 13])
    probe = torch.randn(50, model.config.hidden_size, generator=generator)
    layers, results = Bfloat16Layers(model), []
    for install in (False, True):
        model.zero_grad()
        if install:
            layers.install()
        hidden = packed_hidden(model, ids, layout)[0]
        (hidden.float() * probe).sum().backward()
        layers.remove()
        results.append((hidden.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain, plain_grads), (fast, fast_grads) = results
    assert fast.dtype == torch.bfloat16  # of the last norm: the layers did run
    assert 0 < relative(fast, plain) < 2e-2
    assert plain_grads.keys() == fast_grads.keys()
    for name, grad in plain_grads.items():
        assert fast_grads[name].dtype == torch.float32
        assert relative(fast_grads[name], grad) < 5e-2, name


def test_a_removed_layer_is_a_plain_one_and_changed_weights_are_cast_again(model_folder: Path) -> None:
    model: Any = load_model(model_folder)
    layers, ids, layout = Bfloat16Layers(model), torch.arange(5, 25)[None], packed_layout([20])
    with torch.no_grad():
        before = packed_hidden(model, ids, layout)
        layers.install()
        first = packed_hidden(model, ids, layout)
        layers.remove()
        assert torch.equal(packed_hidden(model, ids, layout), before)
        model.model.layers[0].mlp.down_proj.weight.mul_(100)
        layers.install()
        assert relative(packed_hidden(model, ids, layout), first) > 1e-2
        layers.remove()
        assert not any("forward" in vars(m) for m in model.modules())


def test_frozen_weights_get_no_gradient(model_folder: Path) -> None:
    model: Any = load_model(model_folder)
    frozen = model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    layers = Bfloat16Layers(model)
    layers.install()
    packed_hidden(model, torch.arange(5, 25)[None], packed_layout([20])).float().sum().backward()
    layers.remove()
    assert frozen.grad is None
    assert model.model.layers[0].mlp.down_proj.weight.grad is not None

"""Packing must change no logit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

import pandallm.model.packed as packed
from pandallm.errors import PandaError
from pandallm.model.folder import load_model
from pandallm.model.packed import packed_hidden, packed_layout, packing_probe


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return load_model(model_folder)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=30), st.sampled_from([1, 64, 4096]))
def test_layout_covers_every_token_once(lengths: list[int], small: int) -> None:
    before = packed.SMALL_GROUP_TOKENS
    packed.SMALL_GROUP_TOKENS = small
    try:
        layout = packed_layout(lengths)
    finally:
        packed.SMALL_GROUP_TOKENS = before
    assert layout.starts_E1.diff().tolist() == lengths
    assert layout.position_ids_1N[0].tolist() == [p for n in lengths for p in range(n)]
    assert sorted(t for g in layout.groups for t in g.tokens_G.tolist()) == list(range(sum(lengths)))
    for g in layout.groups:
        assert torch.equal(g.padded_EL[g.slots_G], g.tokens_G)
        assert len(g.padded_EL) == g.examples * g.longest


@pytest.mark.parametrize("small", [1, 4096])  # many groups, one group
@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [1, 20, 3, 9, 1], [40, 2]])
def test_packed_logits_and_gradients_equal_separate_ones(
    model: Any, lengths: list[int], small: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(packed, "SMALL_GROUP_TOKENS", small)
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randint(0, 250, (n,), generator=generator) for n in lengths]
    weights = [torch.randn(n, 32, generator=generator) for n in lengths]

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = packed_hidden(model, torch.cat(examples)[None], packed_layout(lengths))[0]
    alone = [model.base_model(input_ids=e[None], use_cache=False).last_hidden_state[0] for e in examples]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    packed_gradient = gradient((together * torch.cat(weights)).sum())
    separate_gradient = gradient(sum((a * w).sum() for a, w in zip(alone, weights)))
    torch.testing.assert_close(packed_gradient, separate_gradient, atol=1e-3, rtol=1e-4)


def test_probe_passes_and_measures(model: Any) -> None:
    assert packing_probe(model, [[[1, 2, 3], [4, 5]], [[9] * 30]]) < 1e-5


def test_probe_tells_rounding_from_leaks(model: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(packed.PROBE_TOLERANCE, torch.bfloat16, 1e-9)  # every example is odd text now
    assert 1e-9 < packing_probe(model, [[[1, 2, 3], [4, 5]], [[9] * 30]], torch.bfloat16) < 0.1
    monkeypatch.setattr(packed, "PROBE_ROUNDING", 1e-3)
    with pytest.raises(PandaError, match="leak"):
        packing_probe(model, [[[1, 2, 3], [4, 5]]], torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probe_refuses_a_leak(model: Any, monkeypatch: Any, dtype: torch.dtype) -> None:
    """Attention over the flat row as if it were one text: what an ignored document mask does."""

    def leaky(module: Any, query: Any, key: Any, value: Any, mask: Any, packed: Any = None, **kwargs: Any) -> Any:
        if packed is None:
            return packed_attention(module, query, key, value, mask, **kwargs)
        query, key = query.to(value.dtype), key.to(value.dtype)
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2), None

    packed_attention = packed.packed_attention
    monkeypatch.setitem(AttentionInterface._global_mapping, packed.PACKED_ATTENTION, leaky)
    monkeypatch.setitem(packed.PROBE_TOLERANCE, torch.bfloat16, 1e-3)  # this random model hardly looks back
    with pytest.raises(PandaError, match="leak"):
        packing_probe(model, [[[1, 2, 3], [4, 5, 6, 7]]], dtype)


def test_probe_refuses_numbers_that_are_none(model: Any, monkeypatch: Any) -> None:
    forward = model.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * float("nan")
        return out

    monkeypatch.setattr(model, "forward", broken)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(PandaError, match="refuses"):
            packing_probe(model, [[[1, 2, 3]]], dtype)


def test_probe_refuses_a_head_that_training_would_skip(model: Any, monkeypatch: Any) -> None:
    forward = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out

    monkeypatch.setattr(model, "forward", scaled)
    with pytest.raises(PandaError, match="after the head"):
        packing_probe(model, [[[1, 2, 3]]])


def test_windows_shorter_than_an_example_are_refused() -> None:
    x = torch.zeros(1, 2, 6, 4)
    with pytest.raises(PandaError, match="sliding window"):
        packed.packed_attention(torch.nn.Module(), x, x, x, None, packed=packed_layout([6]), sliding_window=4)
    out, _ = packed.packed_attention(torch.nn.Module(), x, x, x, None, packed=packed_layout([3, 3]), sliding_window=4)
    assert out.shape == (1, 6, 2, 4)

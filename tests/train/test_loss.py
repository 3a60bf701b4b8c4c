"""The chunked loss against torch's and transformers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pandallm.train.loss as loss_module
from pandallm.data.packs import PackedRow
from pandallm.model.folder import load_model
from pandallm.model.packed import packed_hidden
from pandallm.train.batch import micro_batch
from pandallm.train.loss import add_by_source, head_cross_entropy


@pytest.mark.parametrize("chunk_logits", [1, 2**24])
def test_value_and_gradients_equal_torch(chunk_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss_module.CHUNK_LOGITS, "cpu", chunk_logits)  # 1: chunks of 16 tokens
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(60, 8, generator=generator, requires_grad=True)
    weight = torch.randn(40, 8, generator=generator, requires_grad=True)
    predictors = torch.randperm(60, generator=generator)[:50]
    targets = torch.randint(0, 40, (50,), generator=generator)
    total, losses = head_cross_entropy(hidden, predictors, weight, targets)
    (total / 7).backward()
    mine = [total.detach(), losses, hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    reference = torch.nn.functional.cross_entropy(hidden[predictors] @ weight.t(), targets, reduction="none")
    (reference.sum() / 7).backward()
    for a, b in zip(mine, [reference.sum().detach(), reference.detach(), hidden.grad, weight.grad], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softmax_logits", [1, 2**19])
@pytest.mark.parametrize("chunk_logits", [1, 2**26])
def test_bfloat16_products_stay_near_float32(
    chunk_logits: int, softmax_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_BFLOAT16_CPU", chunk_logits)
    monkeypatch.setattr(loss_module, "SOFTMAX_LOGITS_CPU", softmax_logits)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(60, 8, generator=generator), torch.randn(40, 8, generator=generator)
    predictors = torch.randperm(60, generator=generator)[:50]
    targets = torch.randint(0, 40, (50,), generator=generator)
    results = []
    for copy in (None, weight.bfloat16()):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        total, losses = head_cross_entropy(h, predictors, w, targets, copy)
        total.backward()
        results.append((total.detach(), losses, h.grad, w.grad))
    for plain, fast in zip(*results, strict=True):
        assert plain is not None
        assert fast is not None
        assert fast.dtype == torch.float32
        assert 0 < float((fast - plain).norm() / plain.norm()) < 2e-2


def test_sums_by_source() -> None:
    sums = torch.zeros(3, dtype=torch.float64)
    add_by_source(sums, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]))
    assert sums.tolist() == [2.0, 0.0, 5.0]


def test_one_unpacked_example_equals_transformers_own_loss(base: Path) -> None:
    """Loss and every gradient, with an untrained beginning."""
    import numpy as np

    model: Any = load_model(base)
    ids, mask = np.arange(5, 25, dtype=np.uint16), np.array([0] * 8 + [1] * 12, dtype=np.uint8)
    batch = micro_batch([PackedRow(ids, mask, np.zeros(20, np.int32), np.zeros(20, np.uint8))], sources=1)
    assert batch.trained_tokens == 12
    hidden = packed_hidden(model, batch.input_ids_1N, batch.layout)[0]
    total, _ = head_cross_entropy(hidden, batch.predictors_M, model.lm_head.weight, batch.targets_M)
    loss = total / batch.trained_tokens
    loss.backward()
    mine = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    labels = torch.where(torch.from_numpy(mask).bool(), torch.from_numpy(ids.astype(np.int64)), -100)[None]
    theirs = model(input_ids=batch.input_ids_1N, labels=labels).loss
    theirs.backward()
    torch.testing.assert_close(loss, theirs, atol=1e-6, rtol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, atol=1e-6, rtol=1e-4)

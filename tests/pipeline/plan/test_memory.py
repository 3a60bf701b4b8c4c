"""The memory model against what torch keeps and what a process takes."""

import os
import sys
from pathlib import Path

import pytest

from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan import memory
from pandallm.pipeline.plan.memory import (
    layer_bytes_per_token,
    micro_batch_tokens,
    model_parts,
    named_sizes,
    stage_memory,
)
from pandallm.train.spec import TrainSpec

SHAPE = ModelShape(hidden_size=64, layers=3, heads=4, kv_heads=2, head_size=32, intermediate_size=160, vocab_size=512)


def stage(**fields: object) -> TrainSpec:
    return TrainSpec.model_validate({"steps": 2, "optimizer": {"lr": 1e-3}, **fields})


def whole(shape: ModelShape, spec: TrainSpec, **more: object) -> memory.Memory:
    arguments = {"dtype": spec.dtype, "kind": "gpu", "tokens": 4096, "micro_batches": 8, "trained_share": 1.0}
    return stage_memory(shape, spec, **(arguments | more))  # type: ignore[arg-type]


def test_constants_are_those_of_the_loss() -> None:
    from pandallm.train import loss

    assert {"cpu": loss.CHUNK_LOGITS["cpu"], "gpu": loss.CHUNK_LOGITS["cuda"]} == memory.CHUNK_LOGITS
    assert memory.CHUNK_BFLOAT16_CPU == loss.CHUNK_BFLOAT16_CPU
    assert memory.SOFTMAX_LOGITS_CPU == loss.SOFTMAX_LOGITS_CPU


@pytest.mark.parametrize("tied", [False, True])
def test_named_sizes_make_up_the_model(tied: bool) -> None:
    from dataclasses import replace

    shape = replace(SHAPE, tie_embeddings=tied)
    assert sum(n for _, n, _ in named_sizes(shape)) == shape.parameters


def test_what_is_trained_follows_the_patterns() -> None:
    everything = model_parts(SHAPE, stage())
    assert everything.trained == SHAPE.parameters
    head = SHAPE.vocab_size * SHAPE.hidden_size
    only = model_parts(SHAPE, stage(trainable=["embeddings"]))
    assert (only.trained, only.trained_matrices, only.trained_head) == (2 * head, 0, True)
    frozen = model_parts(SHAPE, stage(freeze=["model.layers.*.mlp.*"]))
    assert everything.trained - frozen.trained == 3 * 3 * SHAPE.hidden_size * SHAPE.intermediate_size
    lora = model_parts(SHAPE, stage(method={"kind": "lora", "rank": 4, "targets": ["q_proj"]}))
    assert lora.trained == 4 * (64 + 128) * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_layer_keeps_is_what_torch_keeps(dtype: str, tmp_path: Path) -> None:
    """Bytes that autograd saves for one layer more, counted by storage, weights and their copies left out."""
    from dataclasses import replace

    kept = [_saved(replace(SHAPE, layers=layers), dtype, tmp_path / str(layers)) for layers in (2, 3)]
    assert (kept[1] - kept[0]) / 256 == pytest.approx(layer_bytes_per_token(SHAPE, dtype, "cpu"), rel=0.03)


def _saved(shape: ModelShape, dtype: str, folder: Path) -> int:
    import numpy as np
    import torch

    from pandallm.data.packs import PackedRow
    from pandallm.model.folder import load_model
    from pandallm.pipeline.plan.probe import random_model
    from pandallm.train.batch import micro_batch
    from pandallm.train.forward import Forward

    random_model(shape, folder)
    model = load_model(folder)
    model.train()
    rows = [
        PackedRow(np.ones(n, np.uint16), np.ones(n, np.uint8), np.full(n, i, np.int32), np.zeros(n, np.uint8))
        for i, n in enumerate((100, 156))
    ]
    forward = Forward(
        model, getattr(torch, dtype), {"layers": "bfloat16" if dtype == "bfloat16" else "plain", "compiled": False}
    )
    forward.begin_step()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    copies = {tuple(p.shape) for p in model.parameters() if p.ndim == 2}
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and tuple(tensor.shape) not in copies:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        forward(micro_batch(rows, 1))
    return sum(t.untyped_storage().nbytes() for t in seen.values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("fields", [{"dtype": "float32"}, {"dtype": "bfloat16", "gradient_checkpointing": True}])
def test_peak_of_a_process_within_a_tenth(fields: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each large array in its own mapping, so that what the process holds is what is in use."""
    from pandallm.pipeline.plan.probe import probe_stage

    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    shape = ModelShape(256, 4, 4, 4, 64, 768, 4000)
    spec = stage(sequence_length=256, batch_sequences=8, micro_batch_tokens=2048, **fields)
    result = probe_stage(
        shape, spec, packs=None, example_tokens=256, row_tokens=256, trained_share=1.0, device="cpu", threads=1, steps=2
    )
    predicted = stage_memory(shape, spec, dtype=spec.dtype, kind="cpu", tokens=2048, micro_batches=1, trained_share=1.0)
    assert predicted.alive / 2**30 == pytest.approx(result["peak_memory_gib"], rel=0.1)
    assert os.environ["MALLOC_MMAP_THRESHOLD_"]


def test_sharding_divides_what_it_says() -> None:
    llama = ModelShape(4096, 32, 32, 32, 128, 11008, 32000)
    spec = stage(dtype="bfloat16", gradient_checkpointing=True)
    by_kind = {
        kind: whole(llama, spec, sharding=kind, gpus=16).peak
        for kind in ("replicate", "shard_gradients", "hybrid", "shard_all")
    }
    assert by_kind["replicate"] > by_kind["shard_gradients"] > by_kind["hybrid"] > by_kind["shard_all"]
    one = whole(llama, spec)
    assert one.weights == 4 * llama.parameters
    assert one.weights + one.gradients + one.optimizer == 16 * llama.parameters
    parts = model_parts(llama, spec)
    cut = whole(llama, spec, sharding="shard_all", gpus=16)
    assert cut.weights == pytest.approx(4 * (parts.matrices / 16 + parts.rest))


def test_checkpointing_adapters_and_small_moments_take_less() -> None:
    llama = ModelShape(4096, 32, 32, 32, 128, 11008, 32000)
    peaks = [whole(llama, stage(dtype="bfloat16", gradient_checkpointing=c)).peak for c in (False, "selective", True)]
    assert peaks[0] > peaks[1] > peaks[2]
    full = whole(llama, stage(dtype="bfloat16"))
    lora = whole(llama, stage(dtype="bfloat16", method={"kind": "lora"}))
    qlora = whole(llama, stage(dtype="bfloat16", method={"kind": "qlora"}))
    assert full.weights + full.optimizer > 2.5 * (lora.weights + lora.optimizer)
    assert qlora.weights < 0.25 * lora.weights
    bits8 = whole(llama, stage(dtype="bfloat16", optimizer={"lr": 1e-3, "kind": "adamw8bit"}))
    assert bits8.optimizer < 0.26 * full.optimizer


@pytest.mark.parametrize(
    ("row", "limit", "rows", "expected"),
    [(256, 1024, 8, 1024), (256, 1000, 8, 768), (256, 100, 8, 256), (256, 4096, 2, 512), (100, 1000, 50, 1000)],
)
def test_largest_micro_batch(row: float, limit: int, rows: float, expected: float) -> None:
    assert micro_batch_tokens(stage(sequence_length=256, micro_batch_tokens=limit), row, rows) == expected

"""Which variant trains a stage, and that a probe times, compares and remembers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.errors import BadInput, Interrupted
from pandallm.model import onednn
from pandallm.store import read_json
from pandallm.train import variants
from pandallm.train.variants import PLAIN, key_part, layer_weights, pick, resolve_variant, run_probe, told
from tests.train.tiny import tiny_spec

COMPILED = {**PLAIN, "compiled": True}


def result(variant: dict[str, Any], seconds: float | None, loss: float = 2.0, norm: float = 1.0) -> dict[str, Any]:
    return {"variant": variant, "seconds": seconds, "loss": loss, "norm": norm}


def test_weights_of_the_layers_are_counted_from_the_headers(base: Path) -> None:
    # Two layers of width 32: q and o 32 x 32, k and v 16 x 32, three of the MLP 48 x 32.
    assert layer_weights(base) == 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32)


def test_small_models_train_as_ever_and_their_key_says_nothing(base: Path) -> None:
    for dtype, layers in (("float32", "plain"), ("bfloat16", "bfloat16")):
        spec = tiny_spec(dtype=dtype)
        variant = resolve_variant(base, spec, "cpu")
        assert variant == {"layers": layers, "compiled": False}
        assert key_part(variant, spec) == {}


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
def test_large_float32_models_take_onednn_by_a_rule(
    base: Path, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn, "MIN_WEIGHTS", layer_weights(base))
    spec = tiny_spec()
    variant = resolve_variant(base, spec, "cpu")
    fast = capability == "AVX512"
    assert variant["layers"] == ("onednn" if fast else "plain")
    assert key_part(variant, spec) == ({"variant": variant} if fast else {})
    monkeypatch.setattr(onednn, "MIN_WEIGHTS", layer_weights(base) + 1)
    assert resolve_variant(base, spec, "cpu") == PLAIN


def test_named_variants(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = tiny_spec(variant="compiled")
    assert resolve_variant(base, compiled, "cpu") == COMPILED
    assert key_part(COMPILED, compiled) == {"variant": COMPILED}
    assert resolve_variant(base, tiny_spec(variant="plain", dtype="bfloat16"), "cpu") == PLAIN
    with pytest.raises(BadInput, match="liger-kernel"):
        resolve_variant(base, tiny_spec(variant="liger"), "cpu")
    monkeypatch.setattr("pandallm.train.liger.liger_installed", lambda: True)
    with pytest.raises(BadInput, match="needs a GPU"):
        resolve_variant(base, tiny_spec(variant="liger"), "cpu")


def test_parts_of_weights_are_not_compiled() -> None:
    variants.check_variant_sharding(PLAIN, "shard_all")
    variants.check_variant_sharding(COMPILED, "replicate")
    with pytest.raises(BadInput, match="shard_all"):
        variants.check_variant_sharding(COMPILED, "shard_all")


def test_the_fastest_safe_variant_is_picked() -> None:
    fast = {**PLAIN, "layers": "liger"}
    assert pick([result(PLAIN, 1.0), result(COMPILED, 0.8), result(fast, 0.7)]) == fast
    assert pick([result(PLAIN, 1.0), result(COMPILED, 0.8), result(fast, 0.7, loss=2.1)]) == COMPILED  # other numbers
    assert pick([result(PLAIN, 1.0), result(COMPILED, 0.8, norm=float("nan"))]) == PLAIN
    assert pick([result(PLAIN, 1.0), result(COMPILED, 0.99)]) == PLAIN  # too little
    assert pick([result(PLAIN, 1.0), {"variant": COMPILED, "seconds": None, "error": "no compiler"}]) == PLAIN
    assert pick([{"variant": PLAIN, "seconds": None, "error": "memory"}]) == PLAIN
    assert told([result(PLAIN, 1.0), {"variant": COMPILED, "seconds": None}], PLAIN) == (
        "variant plain picked (plain 1000 ms, compiled failed a micro-batch)"
    )


def test_a_probe_times_each_variant_in_its_own_process(base: Path) -> None:
    slow, wrong = {"layers": "bfloat16", "compiled": False}, {"layers": "liger", "compiled": False}
    results = run_probe(base, tiny_spec(gradient_checkpointing="selective"), "cpu", [PLAIN, slow, wrong])
    assert [r["variant"] for r in results] == [PLAIN, slow, wrong]
    assert results[0]["seconds"] > 0
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=0.02)
    assert results[0]["norm"] == pytest.approx(results[1]["norm"], rel=0.05)
    assert results[2]["seconds"] is None
    assert "liger-kernel" in results[2]["error"]


def test_a_probe_that_dies_leaves_the_plain_variant(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert pick(run_probe(base, tiny_spec(), "cpu", [PLAIN, COMPILED])) == PLAIN


def test_on_a_gpu_the_pick_is_told_once_and_remembered(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the device is a stand-in here: no GPU code runs."""
    asked: list[Any] = []

    def probe(start: Path, spec: Any, device: str, given: Any) -> list[dict[str, Any]]:
        asked.append(given)
        return [result(PLAIN, 1.0), result(COMPILED, 0.5)]

    said: list[str] = []

    class Told:
        def say(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr("pandallm.model.folder.resolve_device", lambda device: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(variants, "run_probe", probe)
    file, spec = tmp_path / "store" / "variants.json", tiny_spec(dtype="bfloat16")

    def resolved(spec: Any, **more: Any) -> dict[str, Any]:
        return resolve_variant(base, spec, "cuda", remembered=file, progress=Told(), name="train x", **more)  # type: ignore[arg-type]

    assert resolved(spec) == PLAIN  # small
    monkeypatch.setattr(variants, "MIN_PROBED_WEIGHTS", 1)
    assert resolved(spec, processes=2) == PLAIN
    assert not asked
    assert resolved(spec) == COMPILED
    assert resolved(spec) == COMPILED
    assert asked == [[PLAIN, COMPILED]]
    assert said[-1] == "train x: variant compiled picked (plain 1000 ms, compiled 500 ms a micro-batch)"
    assert resolved(tiny_spec(dtype="bfloat16", micro_batch_tokens=128)) == COMPILED
    assert len(asked) == 2
    assert [p["situation"]["micro_batch_tokens"] for p in read_json(file)["probes"]] == [64, 128]
    assert json.loads(file.read_text())["probes"][0]["picked"] == COMPILED


def test_a_stage_keeps_its_variant_over_a_stop(stage: Callable[..., Any]) -> None:
    onednn_layers = {"layers": "onednn", "compiled": False}
    with pytest.raises(Interrupted):
        stage(variant=onednn_layers, deadline=time.monotonic())
    with pytest.raises(BadInput, match=r"variant\.layers was .*onednn"):
        stage()
    assert stage(variant=onednn_layers)["variant"] == onednn_layers
    assert stage("other")["variant"] == PLAIN

"""What a plan takes for `runtime.sharding: auto` is what a run would take; a sharding that training refuses is not proposed."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pandallm.model.devices import DeviceSpec
from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.fit import Fit, fit_stage
from pandallm.pipeline.plan.hours import Place
from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.show import plan_lines
from pandallm.pipeline.plan.tokens import StageTokens
from pandallm.recipe.load import load_recipe
from pandallm.train.sharding import choose_sharding
from pandallm.train.spec import TrainSpec
from pandallm.train.world import World

SMALL = ModelShape(2048, 22, 32, 4, 64, 5632, 32000)  # 1.1 G
LLAMA_7B = ModelShape(4096, 32, 32, 32, 128, 11008, 32000)
LLAMA_65B = ModelShape(8192, 80, 64, 64, 128, 22016, 32000)
TOKENS = StageTokens(100, 2e8, 2e8, 2e8, 1e5, 2000.0, 500.0, 500.0, "expected", 0.25)


class Agreed(World):
    """Ranks of equal devices."""

    def largest(self, number: int) -> int:
        return number


def stage(**fields: object) -> TrainSpec:
    settings = {"steps": 100, "optimizer": {"lr": 1e-5}, "dtype": "bfloat16", "sequence_length": 2048}
    return TrainSpec.model_validate({**settings, "batch_sequences": 1024, "gradient_checkpointing": True, **fields})


def fit(shape: ModelShape, spec: TrainSpec, gpus: int, memory_gb: float, sharding: str = "auto") -> Fit:
    device = DeviceSpec(bf16_tflops=312, fp32_tflops=19.5, memory_gb=memory_gb, bandwidth_gb_s=2039)
    place = Place("some", gpus, device, "gpu")
    return fit_stage(shape, spec, dtype="bfloat16", tokens=TOKENS, sharding=sharding, place=place)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("gpus", [1, 2, 8, 16])
@pytest.mark.parametrize("memory_gb", [24, 40, 80, 141])
@pytest.mark.parametrize("shape", [SMALL, LLAMA_7B, LLAMA_65B])
def test_a_plan_and_a_run_resolve_auto_alike(
    shape: ModelShape, memory_gb: float, gpus: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SimpleNamespace(total_memory=int(memory_gb * 1e9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    spec = stage(method={"kind": method})
    world = Agreed(torch.device("cuda:0"), 0, gpus)
    taken = choose_sharding("auto", spec, shape.parameters, world)
    assert fit(shape, spec, gpus, memory_gb).chosen.sharding == taken


def test_what_auto_takes_by_hand() -> None:
    """7 G numbers: 27 GB of weights and 81 GB of gradients and moments; half of 80 GB holds 27 + 81 / 8 = 37."""
    assert fit(LLAMA_7B, stage(), 8, 80).chosen.sharding == "shard_gradients"
    assert fit(LLAMA_7B, stage(), 8, 40).chosen.sharding == "shard_all"
    assert fit(SMALL, stage(), 8, 80).chosen.sharding == "replicate"
    assert fit(LLAMA_7B, stage(method={"kind": "lora"}), 8, 80).chosen.sharding == "replicate"


def test_a_stage_that_needs_whole_matrices_is_offered_copies_alone() -> None:
    muon = stage(optimizer={"kind": "muon", "lr": 1e-3})
    found = fit(LLAMA_65B, muon, 16, 80)
    assert found.chosen.sharding == "replicate"
    assert {c.sharding for c in found.choices} == {"replicate"}
    assert (found.proposal, found.devices) == (None, None)
    world = Agreed(torch.device("cuda:0"), 0, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))
        assert choose_sharding("auto", muon, LLAMA_65B.parameters, world) == "replicate"


def test_the_plan_says_what_auto_takes_and_what_training_refuses(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[3] / "recipes"
    empty = [f"runtime.store={tmp_path / 'store'}", f"paths.data={tmp_path / 'nowhere'}"]
    file = str(recipes / "panda-7b.yaml")
    plan = plan_recipe(load_recipe(file, [*empty, "runtime.sharding=auto"]), on="16xA100-80G")
    assert plan["stages"][0]["sharding"] == "shard_gradients"
    marked = [line for line in plan_lines(plan) if "(sharding auto takes it)" in line]
    assert len(marked) == 1
    assert marked[0].strip().startswith("memory  shard_gradients")
    muon = load_recipe(file, [*empty, "stages.pretrain.optimizer={kind: muon, lr: 1e-3}"])
    warnings = plan_recipe(muon, on="16xA100-80G")["stages"][0]["warnings"]
    assert any("training will refuse: optimizer.kind: muon needs whole matrices" in w for w in warnings)

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandallm.data.packs import Packs
from pandallm.errors import PandaError
from pandallm.model.shape import ModelShape, shape_of_config
from pandallm.pipeline.plan.probe import first_steps, made_up_packs, probe_stage, random_model, step_seconds
from pandallm.store import read_json
from pandallm.train.spec import TrainSpec

SHAPE = ModelShape(64, 2, 4, 2, 16, 96, 300, max_position_embeddings=64)


Json = dict[str, Any]


def stage(**fields: object) -> TrainSpec:
    return TrainSpec.model_validate(
        {"steps": 5, "optimizer": {"lr": 1e-3}, "sequence_length": 32, "batch_sequences": 2, **fields}
    )


def test_made_up_packs_are_packs(tmp_path: Path) -> None:
    made_up_packs(tmp_path / "packs", 300, stage(), 5, example_tokens=10, row_tokens=31, trained_share=0.5)
    packs = Packs.open(tmp_path / "packs")
    assert (packs.steps, packs.rows, packs.tokens_of_step(0)) == (5, 10, 62)
    row = packs.row(3)
    assert np.unique(row.example_ids, return_counts=True)[1].tolist() in ([10, 10, 11], [10, 10, 10, 1])
    assert packs.trained_tokens_of_step(1) == sum(int(packs.row(int(i)).loss_mask.sum()) for i in packs.rows_of_step(1))
    first_steps(tmp_path / "packs", tmp_path / "few", 2)
    few = Packs.open(tmp_path / "few")
    assert few.steps == 2
    assert few.rows_of_step(1).tolist() == packs.rows_of_step(1).tolist()


def test_a_random_model_has_the_shape(tmp_path: Path) -> None:
    for number, shape in enumerate((SHAPE, ModelShape(64, 2, 4, 2, 16, 96, 300, query_key_norm=True))):
        random_model(shape, tmp_path / str(number))
        assert shape_of_config(read_json(tmp_path / str(number) / "config.json")).parameters == shape.parameters


def lines_of(seconds: list[float], tokens: list[int], *, every: int = 1, reads: tuple[int, ...] = ()) -> list[Json]:
    """Lines of a metrics.jsonl whose steps took so many seconds; read `every` so many steps and after the steps `reads`."""
    lines: list[Json] = []
    now, pending = 0.0, list[int]()
    for step, (passed, read) in enumerate(zip(seconds, tokens, strict=True), 1):
        now += passed
        pending.append(read)
        if len(pending) == every or step in reads or step == len(seconds):
            lines += [{"tokens": n, "seconds": round(now, 3)} for n in pending]
            pending.clear()
    return lines


@pytest.mark.parametrize("every", [1, 16])
def test_warming_up_and_a_save_are_told_from_the_steps(every: int) -> None:
    tokens = [100, 80] * 10
    seconds = [0.02 * n for n in tokens]
    seconds[0] += 3.0
    seconds[2] += 0.5
    seconds[14] += 4.0  # the save
    seconds[16] += 1.0  # and its write in the background
    found = step_seconds(lines_of(seconds, tokens, every=every, reads=(4, 14)))
    assert found == pytest.approx(
        {"seconds_per_step": 1.8, "tokens_per_step": 90.0, "warm_seconds": 3.5, "save_seconds": 5.0}
    )


def test_a_slow_step_does_not_count_for_the_rate() -> None:
    seconds = [2.0] * 20
    seconds[8] += 30
    found = step_seconds(lines_of(seconds, [100] * 20))
    assert (found["seconds_per_step"], found["warm_seconds"], found["save_seconds"]) == pytest.approx((2.0, 0.0, 0.0))


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 13, 14, 15])
def test_few_steps_tell_what_they_can(steps: int) -> None:
    found = step_seconds(lines_of([2.0] * steps, [100] * steps))
    assert found["seconds_per_step"] == pytest.approx(2.0)
    assert found["warm_seconds"] == found["save_seconds"] == pytest.approx(0.0)
    # Steps too short for the clock of the lines still give a rate above zero.
    assert step_seconds(lines_of([0.0] * steps, [1] * steps))["seconds_per_step"] > 0


def test_a_probe_measures_and_a_failure_is_told() -> None:
    result = probe_stage(
        SHAPE, stage(), packs=None, example_tokens=9, row_tokens=31, trained_share=1.0, device="cpu", threads=1, steps=5
    )
    assert result["tokens_per_step"] == 62
    assert result["seconds_per_step"] > 0
    assert min(result["warm_seconds"], result["save_seconds"]) >= 0
    assert result["peak_memory_gib"] >= result["runtime_memory_gib"] > 0
    with pytest.raises(PandaError, match=r"The probe failed: .*sequence_length 128 is more than the 64 positions"):
        probe_stage(
            SHAPE,
            stage(sequence_length=128),
            packs=None,
            example_tokens=9,
            row_tokens=128,
            trained_share=1.0,
            device="cpu",
            threads=1,
            steps=2,
        )


def test_what_a_probe_measured_is_used_by_later_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandallm.pipeline.plan import probe
    from pandallm.pipeline.plan.recipe import plan_recipe
    from pandallm.recipe.load import load_recipe
    from tests.pipeline.data_example import write_recipe

    asked = []

    def measured(shape: ModelShape, spec: TrainSpec, **more: object) -> dict[str, float]:
        asked.append(spec.sequence_length)
        nothing = dict.fromkeys(("warm_seconds", "save_seconds", "overhead_seconds"), 0.0)
        return {"seconds_per_step": 2.0, "tokens_per_step": 100.0, "peak_memory_gib": 0.5, **nothing}

    monkeypatch.setattr(probe, "probe_stage", measured)
    recipe = load_recipe(str(write_recipe(tmp_path)))
    plan_recipe(recipe, probe=True)
    assert asked == [64, 128]
    again = plan_recipe(recipe)
    assert asked == [64, 128]
    for stage in again["stages"]:
        assert stage["hours"]["by"] == "probe"
        assert stage["hours"]["hours"] == pytest.approx(stage["tokens"]["tokens"] * 0.02 / 3600)
    assert plan_recipe(recipe, on="A100-40G")["stages"][0]["hours"]["by"] == "guess"


def test_a_probe_that_would_not_fit_is_refused(tmp_path: Path) -> None:
    from pandallm.errors import BadInput
    from pandallm.pipeline.plan.recipe import plan_recipe
    from pandallm.recipe.load import load_recipe

    recipes = Path(__file__).parents[3] / "recipes"
    overrides = [f"runtime.store={tmp_path}", "runtime.device=cpu", f"paths.data={tmp_path}"]
    recipe = load_recipe(str(recipes / "panda-65b.yaml"), overrides)
    with pytest.raises(BadInput, match=r"--probe: stage pretrain takes about [\d,]+ GiB on one device"):
        plan_recipe(recipe, on="16xA100-80G", probe=True)

from pathlib import Path

import numpy as np
import pytest

from pandallm.data.packs import Packs
from pandallm.errors import PandaError
from pandallm.model.shape import ModelShape, shape_of_config
from pandallm.pipeline.plan.probe import first_steps, made_up_packs, probe_stage, random_model
from pandallm.store import read_json
from pandallm.train.spec import TrainSpec

SHAPE = ModelShape(64, 2, 4, 2, 16, 96, 300, max_position_embeddings=64)


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


def test_a_probe_measures_and_a_failure_is_told() -> None:
    result = probe_stage(
        SHAPE, stage(), packs=None, example_tokens=9, row_tokens=31, trained_share=1.0, device="cpu", threads=1, steps=5
    )
    assert result["tokens_per_step"] == 62
    assert result["seconds_per_step"] > 0
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
        return {"seconds_per_step": 2.0, "tokens_per_step": 100.0, "overhead_seconds": 0.0, "peak_memory_gib": 0.5}

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

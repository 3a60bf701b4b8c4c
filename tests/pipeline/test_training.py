"""The variant of a stage: resolved once, in its key where it matters, handed to the loop, refused early."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import save_file

from pandallm.errors import BadInput
from pandallm.pipeline.corpora import train_settings
from pandallm.pipeline.run import Run
from pandallm.pipeline.training import TrainingJob, training_job
from pandallm.recipe.load import load_recipe
from pandallm.train.spec import TrainSpec
from tests.pipeline.data_example import write_recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(load_recipe(str(write_recipe(tmp_path))))


def job(run: Run, tmp_path: Path, **changes: Any) -> tuple[TrainingJob, TrainSpec]:
    import numpy as np

    start = tmp_path / "start"
    start.mkdir(exist_ok=True)
    save_file({"model.layers.0.mlp.up_proj.weight": np.zeros((4, 4), np.float32)}, start / "model.safetensors")
    name, (spec, _, _) = next(iter(run.plans().items()))
    spec = spec.model_copy(update={"dtype": "float32", **changes})
    packs: Any = SimpleNamespace(digest="packs", path=tmp_path / "packs")
    return training_job(run, name, spec, packs, (start, "start"), None), spec


def test_what_small_models_have_always_used_is_in_no_key(run: Run, tmp_path: Path) -> None:
    made, spec = job(run, tmp_path)
    assert made.settings == train_settings(run.recipe, spec)
    assert "variant" not in made.settings
    assert made.arguments(run, tmp_path)["variant"] == {"layers": "plain", "compiled": False}


def test_another_variant_is(run: Run, tmp_path: Path) -> None:
    made, _ = job(run, tmp_path, variant="compiled")
    assert made.settings["variant"] == made.arguments(run, tmp_path)["variant"] == {"layers": "plain", "compiled": True}


def test_a_variant_that_cannot_run_here_is_refused_before_data_is_built(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (spec, corpus, origin) = next(iter(run.plans().items()))
    plans = {name: (spec.model_copy(update={"variant": "liger"}), corpus, origin)}
    monkeypatch.setattr(run, "plans", lambda: plans)
    monkeypatch.setattr("pandallm.train.liger.liger_installed", lambda: False)
    with pytest.raises(BadInput, match="liger-kernel"):
        run.check_training()

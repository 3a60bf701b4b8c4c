from pathlib import Path

import pytest
import torch

from pandallm.errors import BadInput
from pandallm.pipeline.data import build_data
from pandallm.pipeline.plan.actual import compared, predict_stage
from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.stored import StoredStages
from pandallm.pipeline.run import Run
from pandallm.progress import Progress
from pandallm.recipe.load import load_recipe
from pandallm.store import write_jsonl
from tests.pipeline.data_example import write_recipe


class Said(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


PREDICTED = {
    "steps": 4,
    "tokens": 100,
    "seconds": 10.0,
    "seconds_low": 8.0,
    "seconds_high": 12.5,
    "peak_memory_gib": 1.0,
}


def test_predicted_against_actual(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metrics" / "pretrain.jsonl", [{"step": i, "seconds": 3.0 * i} for i in range(1, 5)])
    facts = {"steps": 4, "tokens": 100, "trained_tokens": 90, "peak_memory_gib": 1.2, "predicted": PREDICTED}
    stages = [
        {"name": "pack pretrain", "kind": "pack", "facts": {}},
        {"name": "train pretrain", "kind": "train", "facts": facts},
        {"name": "train old", "kind": "train", "facts": {"steps": 4}},  # made before there were predictions
    ]
    (row,) = compared(stages, tmp_path)
    assert row["stage"] == "pretrain"
    assert row["actual"] == {"steps": 4, "tokens": 100, "trained_tokens": 90, "peak_memory_gib": 1.2, "seconds": 12.0}
    assert row["ratio"] == {"tokens": 1.0, "seconds": 1.2}
    assert row["within"]


def test_without_metrics_nothing_is_claimed(tmp_path: Path) -> None:
    facts = {"steps": 4, "tokens": 100, "predicted": PREDICTED}
    (row,) = compared([{"name": "train x", "kind": "train", "facts": facts}], tmp_path)
    assert row["actual"]["seconds"] is None
    assert not row["within"]


def test_where_no_hours_were_predicted_none_are_judged(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metrics" / "x.jsonl", [{"step": 1, "seconds": 3.0}])
    predicted = {**PREDICTED, "seconds": None, "seconds_low": None, "seconds_high": None}
    facts = {"steps": 4, "tokens": 100, "peak_memory_gib": 1.2, "predicted": predicted}
    (row,) = compared([{"name": "train x", "kind": "train", "facts": facts}], tmp_path)
    assert row["actual"]["seconds"] == 3.0
    assert row["ratio"] == {"tokens": 1.0, "seconds": None}
    assert row["within"] is None


class OneGpu:
    """What torch says of a machine with a GPU that no table lists."""

    name, total_memory = "NVIDIA Frobnicator 9", 48 * 10**9

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: self.name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: self)


def test_on_a_gpu_that_no_table_lists_no_hours_are_predicted_until_it_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path)), ["runtime.device=auto"])
    build_data(recipe)
    stored = StoredStages(recipe)
    said = Said()
    run = Run(recipe, said)
    OneGpu(monkeypatch)
    name, (spec, _, _) = next(iter(stored.plans().items()))
    arguments = run, spec.model_copy(update={"dtype": "bfloat16"}), stored.packs[name].path, stored.start()[0]
    predicted = predict_stage(*arguments)
    assert predicted is not None
    assert predicted["device"] == "1xNVIDIA Frobnicator 9"
    assert (predicted["seconds"], predicted["by"]) == (None, None)
    assert predicted["peak_memory_gib"] > 1
    assert predicted["tokens"] > 0
    (sentence,) = said.lines
    assert "NVIDIA Frobnicator 9, is in no table of devices" in sentence
    table = run.store.root / "devices.yaml"
    assert str(table) in sentence
    line = sentence.split("`")[1]
    assert line.startswith('"NVIDIA Frobnicator 9": {bf16_tflops: ..')

    table.write_text(line.replace("..", "50") + "\n", encoding="utf-8")
    predicted = predict_stage(*arguments)
    assert predicted is not None
    assert predicted["by"] == "guess"
    assert predicted["seconds"] is not None
    assert len(said.lines) == 1
    table.write_text("[", encoding="utf-8")
    predicted = predict_stage(*arguments)
    assert predicted is not None
    assert predicted["seconds"] is None
    assert "devices.yaml is not YAML" in said.lines[1]


def test_a_plan_for_such_a_machine_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path)), ["runtime.device=auto"])
    OneGpu(monkeypatch)
    plan = plan_recipe(recipe)
    assert plan["place"]["label"] == "16xA100-80G"
    assert "NVIDIA Frobnicator 9, is in no table of devices" in plan["notes"][0]
    with pytest.raises(BadInput, match="is in no table of devices"):
        plan_recipe(recipe, probe=True)
    own = tmp_path / "own.yaml"
    own.write_text(plan["notes"][0].split("`")[1].replace("..", "50"), encoding="utf-8")
    assert plan_recipe(recipe, device_file=own)["place"]["label"] == "1xNVIDIA Frobnicator 9"

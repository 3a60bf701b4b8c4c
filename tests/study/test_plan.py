"""What a plan says before anything runs."""

from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.study.arms import make_arms
from pandallm.study.plan import plan_study
from tests.study.studies import SMALL, study

RATES = {"lr": {"field": "stages.instruct.optimizer.lr", "levels": [0.0001, 0.001, 0.01]}}


def test_three_instruction_arms_share_one_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = study(tmp_path, RATES, set=SMALL, metrics={"facts": {"kind": "accuracy", "tasks": ["microworld-facts"]}})
    plan = plan_study(file, make_arms(file), costs=False)
    stages = {s["kind"]: (s["total"], s["made"]) for s in plan["stages"]}
    # Two seeds: a world, a base, a pretraining each; three instruction stages each.
    assert stages["train"] == (18, 2 * (1 + 1 + 3))
    assert stages["world"] == (6, 2)
    assert plan["runs"] == 6
    assert plan["states"] == {"missing": 6}
    short, long = 3 * 128 * 4, 3 * 128 * 8
    assert plan["training"]["tokens_without_sharing"] == 6 * (2 * short + long)
    assert plan["training"]["tokens"] == 2 * (2 * short + 3 * long)
    (facts,) = plan["detectable"]
    assert (facts["questions"], facts["clusters"]) == (48, 12)
    assert facts["detectable"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"], "a plan writes nothing"


def test_more_seeds_find_smaller_effects(tmp_path: Path) -> None:
    found = []
    for seeds in (3, 5, 10):
        file = study(tmp_path, RATES, set=SMALL, seeds=seeds)
        plan = plan_study(file, make_arms(file), costs=False)
        found.append(next(d["detectable"] for d in plan["detectable"] if d["metric"] == "headline"))
        assert [d["detectable"] for d in plan["detectable"] if d["metric"].startswith("bits")] == [None, None]
    assert found[0] > 1.5 * found[1] > 1.5 * 1.3 * found[2]


def test_only_the_questions_that_are_asked_count(tmp_path: Path) -> None:
    file = study(tmp_path, RATES, set={**SMALL, "evaluate.limit.likelihood": 10, "evaluate.limit.passages": 5})
    plan = plan_study(file, make_arms(file), costs=False)
    assert (plan["detectable"][0]["questions"], plan["detectable"][0]["clusters"]) == (10, 5)


def test_epochs_are_not_known_beforehand(tmp_path: Path) -> None:
    file = study(tmp_path, RATES, set={**SMALL, "stages.pretrain.epochs": 1})
    assert plan_study(file, make_arms(file), costs=False)["training"]["unknown"] == ["pretrain"]


def test_hours_count_every_stage_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = study(tmp_path, RATES, set=SMALL)
    costs = plan_study(file, make_arms(file), on="1xA100-80G")["costs"]
    assert costs["why"] is None
    first = next(iter(costs["arms"].values()))
    assert costs["hours_without_sharing"] == pytest.approx(2 * 3 * first)
    assert first * 2 < costs["hours"] < 0.99 * costs["hours_without_sharing"]
    assert costs["usd"] > 0
    with pytest.raises(BadInput, match="A100"):
        plan_study(file, make_arms(file), on="1xA100-81G")

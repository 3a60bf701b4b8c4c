import json
from pathlib import Path
from typing import Any

import pytest

from pandallm.cli import main
from pandallm.pipeline.diff import diff_recipes
from pandallm.recipe.load import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def diff(a: str, b: str, *overrides: str) -> dict[str, Any]:
    paths = [str(p) if (p := RECIPES / f"{name}.yaml").exists() else name for name in (a, b)]
    return diff_recipes(load_recipe(paths[0]), load_recipe(paths[1], overrides))


def of_state(result: dict[str, Any], state: str) -> list[str]:
    return [s["name"] for s in result["stages"] if s["state"] == state]


def test_the_papers_schedule_changes_training_and_what_comes_after() -> None:
    result = diff("panda-7b", "panda-7b-as-coded")
    assert [s for s in result["settings"] if s["changes_results"]] == [
        {"field": "stages.pretrain.optimizer.warmup", "a": 0.01, "b": 1157.0, "changes_results": True},
        {"field": "stages.pretrain.optimizer.schedule_steps", "b": 115721, "changes_results": True},
    ]
    assert of_state(result, "shared")[:3] == ["import base", "clean chinese", "pack pretrain"]
    train = next(s for s in result["stages"] if s["name"] == "train pretrain")
    assert (train["state"], train["inputs"]) == ("changed", [])
    assert train["settings"] == ["optimizer.warmup", "optimizer.schedule_steps"]
    assert result["only_in_a"] == []


def test_a_second_stage_shares_the_first() -> None:
    result = diff("panda-7b", "panda-instruct-7b")
    assert "train pretrain" in of_state(result, "shared")
    assert "train instruct" in of_state(result, "new")
    assert result["only_in_a"] == ["delta of pretrain"]
    whole = next(s for s in result["settings"] if s["field"] == "stages.instruct")  # one entry, not one per field
    assert whole["b"]["optimizer"]["lr"] == 3e-5
    assert "a" not in whole


def test_equal_recipes_share_everything() -> None:
    result = diff("microworld", "microworld")
    assert result["settings"] == []
    assert len(of_state(result, "shared")) == len(result["stages"])


def test_settings_of_the_machine_change_no_result() -> None:
    result = diff("microworld", "microworld", "runtime.threads=2", "corpora.coig.sources.coig.licence=MIT")
    assert [(s["field"], s["changes_results"]) for s in result["settings"]] == [
        ("corpora.coig.sources.coig.licence", False),
        ("runtime.threads", False),
    ]
    assert len(of_state(result, "shared")) == len(result["stages"])


def test_a_stage_under_another_name_is_found(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe("microworld").model_dump(mode="json", by_alias=True, exclude_none=True)
    recipe["stages"]["first"] = recipe["stages"].pop("pretrain")
    recipe["stages"]["instruct"] = {**recipe["stages"].pop("instruct"), "from": "first"}
    recipe["evaluate"]["models"] = ["base", "first", "instruct"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    result = diff("microworld", str(tmp_path / "r.yaml"))
    stages = {s["name"]: s for s in result["stages"]}
    assert stages["train first"] == {
        "name": "train first",
        "kind": "train",
        "state": "shared",
        "as": "train pretrain",
    }
    assert stages["train instruct"]["state"] == "shared"
    assert "train pretrain" not in result["only_in_a"]


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        main(["diff", *arguments])
    out = capsys.readouterr()
    return int(e.value.code or 0), out.out, out.err


def test_one_recipe_is_compared_with_itself_under_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = panda(capsys, "microworld", "stages.instruct.epochs=4", "seed=42")
    assert code == 0
    assert "  stages.instruct.epochs  2.0 -> 4.0" in out
    assert "  made anew: pack instruct (settings: epochs)" in out
    assert "evaluate instruct on microworld-facts, evaluate instruct on" in out
    code, out, _ = panda(capsys, "microworld", "seed=7", "--json")
    assert [s["field"] for s in json.loads(out)["settings"]] == ["seed"]


def test_hours_of_training_are_told_by_what_is_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no store
    paths = [str(RECIPES / f"panda-{name}.yaml") for name in ("7b", "instruct-7b")]
    code, out, _ = panda(capsys, *paths, "--on", "16xA100-80G", "--json")
    assert code == 0
    hours = json.loads(out)["hours"]
    assert hours["place"] == "16xA100-80G"
    # The second stage reads a thirteenth of the first's tokens.
    assert 0 < hours["made"]["hours"] < hours["shared"]["hours"] / 5
    assert hours["made"]["low"] < hours["made"]["hours"] < hours["made"]["high"]
    code, out, _ = panda(capsys, *paths, "--on", "16xA100-80G")
    assert "Training of b on 16xA100-80G: " in out
    code, _, err = panda(capsys, *paths, "--on", "16xA100")
    assert code == 2
    assert "A100-80G" in err


def test_equal_recipes_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = panda(capsys, "microworld", "microworld")
    assert code == 0
    assert "No setting that changes a result differs." in out


@pytest.mark.parametrize("arguments", [["microworld"], ["microworld", "microworld", "microworld"]])
def test_one_or_three_recipes_alone_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = panda(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Give two recipes, or one and overrides" in err

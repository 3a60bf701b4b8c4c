"""Study files: what is read, and every mistake as one sentence with its line."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from pandallm.errors import BadInput
from pandallm.study.arms import make_arms
from pandallm.study.load import load_study
from pandallm.study.spec import AnyFactor
from tests.study.studies import study


def test_short_forms_mean_the_long_ones(tmp_path: Path) -> None:
    spec = study(
        tmp_path,
        {
            "lr": {"field": "stages.instruct.optimizer.lr", "levels": [0.001, 0.01]},
            "both": {"levels": {"plain": {}, "long": {"stages.pretrain.steps": 9}}},
        },
        grid="one_at_a_time",
        seeds=3,
    ).spec
    assert spec.factors["lr"].kind == "field"
    assert spec.factors["lr"].levels == {"0.001": 0.001, "0.01": 0.01}
    assert spec.factors["lr"].reference == "0.001"
    assert spec.factors["both"].kind == "set"
    assert spec.grid.kind == "one_at_a_time"
    assert spec.seeds == (1, 2, 3)
    assert spec.margin.accuracy == 0.02


def test_numbers_name_the_levels_that_are_written_like_them(tmp_path: Path) -> None:
    claims = {"one": {"factor": "lr", "a": 0.001, "b": 0.01}, "two": {"a": {"lr": 0.001}, "b": {"lr": 0.01}}}
    spec = study(tmp_path, LR, contrasts=claims).spec
    assert [(c.a, c.b) for c in spec.contrasts.values()] == [("0.001", "0.01"), ({"lr": "0.001"}, {"lr": "0.01"})]


LR = {"lr": {"field": "stages.instruct.optimizer.lr", "levels": [0.001, 0.01]}}


@pytest.mark.parametrize(
    ("factors", "more", "sentence"),
    [
        ({"x": {"kind": "shares", "levels": [1, 2]}}, {}, "kind 'shares' is not known. Did you mean 'share'?"),
        (
            {"lr": {"field": "a", "levels": [1]}},
            {},
            "study.yaml:7: factors.lr.levels: needs at least 2 entries, found 1",
        ),
        ({"lr": {"field": "a", "levels": 3}}, {}, "factors.lr.levels: give fields with values (NAME: VALUE), not '3'"),
        ({"lr": {"field": "a", "levels": ["a b", "c"]}}, {}, "factors.lr.levels.a b: 'a b' is no name: use letters"),
        ({}, {}, "factors: needs at least 1 entry, found 0"),
        ({"lr": {"field": "a", "levels": [1, 1]}}, {}, "level '1' is given twice"),
        ({"lr": {"field": "a", "levels": [[1], [2]]}}, {}, "give others a name"),
        (
            {"lr": {"field": "a", "level": [1, 2], "levels": [1, 2]}},
            {},
            "unknown field 'level'. Did you mean 'levels'?",
        ),
        ({"lr": {"field": "a", "levels": [1, 2], "baseline": "3"}}, {}, "baseline '3' is not one of the levels 1, 2"),
        (LR, {"seeds": [1, 1]}, "a seed is given twice"),
        (LR, {"recipe": "microwrld"}, "recipe: No recipe 'microwrld'"),
        (LR, {"budget": {"pretrain": {"tokens": 1, "steps": 1}}}, "give exactly one of tokens"),
        (
            LR,
            {"contrasts": {"c": {"factor": "l", "a": "0.001", "b": "0.01"}}},
            "there is no factor 'l'. Did you mean 'lr'?",
        ),
        (LR, {"contrasts": {"c": {"factor": "lr", "a": "0.001", "b": "0.1"}}}, "factor 'lr' has no level '0.1'."),
        (LR, {"contrasts": {"c": {"factor": "lr", "a": "0.01", "b": "0.01"}}}, "both sides are the same"),
        (LR, {"contrasts": {"c": {"a": "0.01", "b": "0.001"}}}, "give levels by factor"),
        (
            LR,
            {
                "metrics": {"facts": {"kind": "accuracy", "tasks": ["microworld-facts"]}},
                "contrasts": {"c": {"factor": "lr", "a": "0.01", "b": "0.001", "metric": "fact"}},
            },
            "there is no metric 'fact'. Did you mean 'facts'?",
        ),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_line(
    factors: dict[str, Any], more: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as e:
        study(tmp_path, factors, **more)
    assert sentence in str(e.value)
    assert str(e.value).startswith(f"{tmp_path / 'study.yaml'}:")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_study(tmp_path / "none.yaml")


def test_the_recipe_is_relative_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "name: mine\nbase: {model: somewhere}\ncorpora: {c: {sources: {s: {adapter: text, files: x}}}}\n"
    )
    assert study(tmp_path, LR, recipe="my.yaml").recipe.recipe().name == "mine"


def test_the_example_of_the_page_is_a_study(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    (tmp_path / "study.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    file = load_study(tmp_path / "study.yaml")
    assert [arm.name for arm in make_arms(file)] == ["lr-0.0002", "lr-0.001", "lr-0.005"]
    assert file.spec.factors["lr"].reference == "0.001"
    kinds = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert kinds == {get_args(f.model_fields["kind"].annotation)[0] for f in get_args(get_args(AnyFactor)[0])} - {
        "field",
        "set",
    }

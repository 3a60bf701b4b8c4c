"""base.shape against the model's own config."""

from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.pipeline.plan.base import base_shape, stage_shape
from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.show import plan_lines
from pandallm.recipe.load import load_recipe
from pandallm.recipe.spec import BaseSpec
from pandallm.store import read_json, write_json
from tests.pipeline.data_example import write_recipe

TRUE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "max_position_embeddings": 512}


def given(tmp_path: Path, **changes: object) -> BaseSpec:
    write_recipe(tmp_path / "own")
    config = read_json(tmp_path / "own" / "base" / "config.json")
    shape = {**TRUE, "vocab_size": config["vocab_size"], **changes}
    return BaseSpec.model_validate({"model": str(tmp_path / "own" / "base"), "shape": shape})


def test_the_config_wins_and_a_number_that_differs_is_named(tmp_path: Path) -> None:
    base = given(tmp_path, layers=9)
    notes: list[str] = []
    assert base_shape(base, None, notes=notes).layers == 1
    (note,) = notes
    assert note.startswith("warning: base.shape.layers is 9, the model's own config says 1: the config counts")
    in_store: list[str] = []
    assert base_shape(base, tmp_path / "own" / "base", notes=in_store).layers == 1
    assert in_store == notes


def test_numbers_that_agree_or_are_left_out_are_not_worth_a_word(tmp_path: Path) -> None:
    notes: list[str] = []
    base_shape(given(tmp_path), None, notes=notes)
    assert notes == []


def test_base_shape_stands_in_for_a_family_that_is_not_known_also_once_it_is_in_the_store(tmp_path: Path) -> None:
    base = given(tmp_path, layers=3)
    start = tmp_path / "start"
    start.mkdir()
    config = read_json(tmp_path / "own" / "base" / "config.json")
    write_json(start / "config.json", {**config, "model_type": "gemma3", "vocab_size": 7000})
    assert base_shape(base, start).layers == 3
    assert (stage_shape(base, start).layers, stage_shape(base, start).vocab_size) == (3, 7000)
    with pytest.raises(BadInput, match=r"give base\.shape"):
        base_shape(base.model_copy(update={"shape": None}), start)


def test_new_pieces_are_counted_on_top_and_their_rows_are_no_contradiction(tmp_path: Path) -> None:
    base = given(tmp_path)
    assert base.shape is not None
    extended = BaseSpec.model_validate({**base.model_dump(), "extend": {"size": 100, "corpora": ["texts"]}})
    rows = base_shape(extended, None).vocab_size
    assert rows >= base.shape.vocab_size + 100
    start, original = tmp_path / "extended", tmp_path / "own" / "base"
    start.mkdir()
    write_json(start / "config.json", {**read_json(original / "config.json"), "vocab_size": rows})
    notes: list[str] = []
    assert base_shape(extended, start, original=original, notes=notes).vocab_size == rows
    assert notes == []


def test_the_plan_shows_it(tmp_path: Path) -> None:
    file = str(write_recipe(tmp_path))
    shape = "{hidden_size: 32, layers: 1, heads: 2, intermediate_size: 16, vocab_size: 9}"
    plan = plan_recipe(load_recipe(file, [f"base.shape={shape}"]), on="A100-40G")
    assert plan["model"]["hidden_size"] == 16
    text = "\n".join(plan_lines(plan))
    assert "base.shape.hidden_size is 32, the model's own config says 16" in text
    assert "base.shape.vocab_size is 9" in text

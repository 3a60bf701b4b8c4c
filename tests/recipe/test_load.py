from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.recipe.load import expand, load_recipe

GOOD = """\
name: small
paths: {data: texts}
base: {model: some/llama}
corpora:
  chinese:
    sources:
      wiki: {adapter: wiki, files: "${data}/wiki.json"}
stages:
  pretrain:
    from: base
    corpus: chinese
    epochs: 1
    optimizer: {lr: 1e-5}
evaluate: {models: [base, pretrain], tasks: []}
"""


def load(tmp_path: Path, text: str, *overrides: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path), overrides)


def test_a_recipe_is_read_and_paths_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(tmp_path, GOOD)
    assert recipe.stages["pretrain"].optimizer.lr == 1e-5  # YAML 1.1 reads 1e-5 as text
    assert recipe.paths["data"] == str(tmp_path / "texts")
    monkeypatch.setenv("PANDA_DATA", str(tmp_path / "elsewhere"))
    assert load(tmp_path, GOOD).paths["data"] == str(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path, GOOD, "paths.data=mine").paths["data"] == str(tmp_path / "mine")


def test_overrides_reach_any_field_and_a_budget_replaces_the_other(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        GOOD,
        "seed=7",
        "stages.pretrain.steps=3",
        "stages.pretrain.optimizer.betas=[0.9, 0.95]",
        "evaluate.models.1=base",
    )
    assert recipe.seed == 7
    assert (recipe.stages["pretrain"].steps, recipe.stages["pretrain"].epochs) == (3, None)
    assert recipe.stages["pretrain"].optimizer.betas == (0.9, 0.95)
    assert recipe.evaluate is not None
    assert recipe.evaluate.models == ("base", "base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("corpus: chinese", "corpus: chinees"),
            r"r\.yaml:11: stages\.pretrain\.corpus: unknown corpus 'chinees'\. Did you mean 'chinese'\?",
        ),
        (
            ("epochs: 1", "epoch: 1"),
            r"r\.yaml:12: stages\.pretrain\.epoch: unknown field 'epoch'\. Did you mean 'epochs'\?",
        ),
        (("lr: 1e-5", "lr: fast"), r"r\.yaml:13: stages\.pretrain\.optimizer\.lr: Input should be a valid number"),
        (("adapter: wiki", "adapter: wikki"), r"r\.yaml:7: .*adapter: 'wikki' is not known\. Did you mean 'wiki'\?"),
        (
            ("from: base", "from: bass"),
            r"r\.yaml:10: stages\.pretrain\.from: unknown stage 'bass'\. Did you mean 'base'\?",
        ),
        (
            ("[base, pretrain]", "[base, pretrian]"),
            r"r\.yaml:14: evaluate\.models\.1: unknown model 'pretrian'\. Did you mean 'pretrain'\?",
        ),
        (("tasks: []", "tasks: [c3m]"), r"r\.yaml:14: evaluate\.tasks\.0: unknown task 'c3m'\. Did you mean 'c3-m'\?"),
        (("${data}", "${dta}"), r"r\.yaml:7: .*files: unknown variable 'dta'\. Did you mean 'data'\?"),
        (
            ("    epochs: 1", "    epochs: 1\n    epochs: 2"),
            r"r\.yaml:13: 'stages\.pretrain\.epochs' is given twice \(first on line 12\)",
        ),
        (
            ("    epochs: 1", "    epochs: 1\n    tokens: 5"),
            r"give exactly one of epochs, documents, tokens, steps \(given: epochs, tokens\)",
        ),
        (("base: {model: some/llama}", "base: {}"), r"r\.yaml:3: base: give exactly one of model, gguf, scratch"),
        (("name: small\n", ""), r"name: is required but missing"),
        (("name: small", "name: [small"), r"r\.yaml:\d+: not valid YAML"),
        (
            ("name: small", "name: ../up"),
            r"r\.yaml:1: name: '\.\./up' is no name: use letters, digits and \. _ -, the first",
        ),
    ],
)
def test_mistakes_are_named_with_line_field_and_the_nearest_name(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in GOOD
    with pytest.raises(BadInput, match=message) as e:
        load(tmp_path, GOOD.replace(*change))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stages.pretrain.stepz=3",
            r"override 'stages\.pretrain\.stepz=3': .*unknown field 'stepz'\. Did you mean 'steps'\?",
        ),
        ("seed=abc", r"override 'seed=abc': seed: Input should be a valid integer"),
        ("seed", r"'seed' is not an override"),
        ("name.x=1", r"'name' holds a value, not fields"),
        ("evaluate.models.9=base", r"'9' is not the number of an item \(0 to 1\)"),
        ("seed=[1", r"the value is not valid YAML"),
    ],
)
def test_mistakes_in_overrides_name_the_override(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(tmp_path, GOOD, override)


def test_a_base_from_scratch_cannot_chat() -> None:
    with pytest.raises(
        BadInput, match=r"override 'evaluate.chat=both': evaluate.chat: a base made from scratch has no"
    ):
        load_recipe(None, ["evaluate.chat=both"])


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(BadInput, match=r"No recipe 'microwrld'.*Did you mean 'microworld'"):
        load_recipe("microwrld")
    with pytest.raises(BadInput, match="expected a mapping"):
        load(tmp_path, "- a\n- b\n")
    with pytest.raises(BadInput, match="found nothing"):
        load(tmp_path, "# nothing\n")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        load_recipe(str(tmp_path / "latin.yaml"))


def test_variables_expand() -> None:
    assert expand("${a}/x/${b}", {"a": "1", "b": "2"}, "f") == "1/x/2"
    with pytest.raises(BadInput, match=r"f: unknown variable '\$\{c\}'"):
        expand("${c}", {"a": "1"}, "f")


def test_the_default_recipe_is_the_microworld() -> None:
    recipe = load_recipe(None, ["seed=7"])
    assert (recipe.name, recipe.seed) == ("microworld", 7)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_checks_without_torch(path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from pandallm.recipe.load import load_recipe; load_recipe(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_the_schema_for_editors_is_up_to_date() -> None:
    import json

    from pandallm.recipe.spec import Recipe

    stored = json.loads((Path(__file__).parents[2] / "recipes" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert stored == Recipe.model_json_schema(by_alias=True), "run: panda schema > recipes/recipe.schema.json"


def test_an_override_reaches_one_of_two_values_that_share_an_anchor() -> None:
    recipe = load_recipe(None, ["stages.pretrain.optimizer.lr=0.5"])
    assert recipe.stages["pretrain"].optimizer.lr == 0.5
    assert recipe.base.scratch is not None
    assert recipe.base.scratch.train.optimizer.lr == 0.002


def test_a_budget_replaces_the_other_and_taking_one_out_leaves_the_rest() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    for more in ([], ["stages.pretrain.documents=null"]):
        stage = load_recipe(str(recipes / "panda-7b.yaml"), ["stages.pretrain.epochs=9", *more]).stages["pretrain"]
        assert (stage.epochs, stage.documents) == (9, None)

"""The graph knows from the recipe alone what the store will share."""

import subprocess
import sys
from pathlib import Path

import pytest

from pandallm.pipeline.graph import StageNode, stage_graph
from pandallm.pipeline.run import Run
from pandallm.recipe.load import load_recipe
from tests.pipeline.data_example import write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
FEWER = ["stages.pretrain.steps=2", "stages.instruct.steps=2"]


def identities(recipe: str, *overrides: str) -> dict[str, str]:
    return {node.name: node.identity for node in stage_graph(load_recipe(recipe, overrides))}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe that ran once, so that its store holds every stage."""
    path = str(write_recipe(tmp_path_factory.mktemp("graph")))
    Run(load_recipe(path, FEWER)).execute()
    return path


def test_the_graph_names_the_stages_of_a_run_and_their_settings(recipe: str) -> None:
    loaded = load_recipe(recipe, FEWER)
    run = Run(loaded)
    run.execute()
    assert all(record.reused for record in run.records)
    nodes = {node.name: node for node in stage_graph(loaded)}
    assert set(nodes) == {record.name for record in run.records}
    for record in run.records:
        node, made = nodes[record.name], record.artifact.manifest
        assert node.kind == record.kind == made["stage"]
        if node.kind != "evaluate":  # there the task's own file is part of the settings; here its name stands for it
            assert node.settings == made["settings"], record.name


@pytest.mark.parametrize(
    ("override", "anew"),
    [
        ("stages.instruct.optimizer.lr=2e-3", {"train instruct", "evaluate instruct on lake"}),
        (
            "corpora.talks.sources.alpaca.max_records=5",
            {"clean talks", "pack instruct", "train instruct", "evaluate instruct on lake"},
        ),
        ("evaluate.max_new_tokens=3", {"evaluate base on lake", "evaluate instruct on lake"}),
        ("runtime.save_every_seconds=5", set()),
        ("corpora.texts.sources.wiki.licence=MIT", set()),
    ],
)
def test_what_the_graph_shares_comes_from_the_store_and_what_it_does_not_is_made(
    recipe: str, override: str, anew: set[str]
) -> None:
    before, after = identities(recipe, *FEWER), identities(recipe, *FEWER, override)
    assert {name for name in after if after[name] != before[name]} == anew
    run = Run(load_recipe(recipe, [*FEWER, override]))
    run.execute()
    assert {record.name for record in run.records if not record.reused} == anew


def test_a_seed_changes_what_is_drawn_and_no_more() -> None:
    a, b = (identities(str(RECIPES / "qwen3-8b-zh.yaml"), f"seed={seed}") for seed in (1, 2))
    same = {name for name in a if a[name] == b[name]}
    assert {"import base", "clean chinese", "clean coig", "evaluate base on c3-d"} <= same
    assert not same & {"pack pretrain", "train pretrain", "evaluate instruct on c3-d"}


def test_everything_in_the_microworld_hangs_on_the_world() -> None:
    a, b = (identities("microworld", f"seed={seed}") for seed in (1, 2))
    assert not [name for name in a if a[name] == b[name]]


@pytest.mark.parametrize("change", ["world.wrong_answers=0.5", "world.english_instructions=0.5"])
def test_what_the_world_does_to_its_instructions_reaches_what_reads_them_alone(change: str) -> None:
    corpora = "base.scratch.tokenizer.corpora=[english, chinese]"
    a, b = identities("microworld", corpora), identities("microworld", corpora, change)
    changed = {name for name in a if a[name] != b[name] and not name.startswith("evaluate")}
    assert changed == {"world", "clean coig", "pack instruct", "train instruct", "delta of instruct"}
    assert {name for name in a if name.startswith("evaluate instruct") and a[name] == b[name]} == set()
    assert a["evaluate pretrain on microworld-facts"] == b["evaluate pretrain on microworld-facts"]


def test_a_vocabulary_is_part_of_the_packs_and_the_old_base_is_not() -> None:
    name = str(RECIPES / "llama2-13b-zh.yaml")
    a, b = identities(name), identities(name, "base.extend.size=100")
    assert {n for n in a if a[n] == b[n]} == {"import base", "clean chinese"} | {
        n for n in a if n.startswith("evaluate original")
    }


def test_equal_training_under_another_name_is_one_stage() -> None:
    recipe = load_recipe("microworld")
    twin = recipe.model_copy(update={"stages": {"copy": recipe.stages["pretrain"], **recipe.stages}})
    nodes: dict[str, StageNode] = {node.name: node for node in stage_graph(twin)}
    assert nodes["train copy"].identity == nodes["train pretrain"].identity


def test_no_file_is_read_and_torch_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pandallm.recipe.load import load_recipe; from pandallm.pipeline.graph import stage_graph\n"
        "recipe = load_recipe(sys.argv[1])\n"
        "def refuse(event, args):\n"
        "    assert event != 'open' or not str(args[0]).startswith(sys.argv[2]), args\n"
        "sys.addaudithook(refuse)\n"
        "[node.identity for node in stage_graph(recipe)]\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'scipy'} & set(sys.modules)\n"
    )
    path = write_recipe(tmp_path)
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path)], check=True)

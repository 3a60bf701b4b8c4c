import json
import subprocess
import sys
from pathlib import Path

import pytest

from pandallm.cli import main
from pandallm.pipeline.check import check_recipe, known_steps, missing_files
from pandallm.recipe.load import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def warnings(*overrides: str, recipe: str = "microworld") -> list[str]:
    return check_recipe(load_recipe(recipe, overrides))


def test_the_microworld_has_nothing_to_warn_of() -> None:
    assert warnings() == []


def test_the_papers_schedule_as_coded_is_warned_of_without_its_data() -> None:
    warmup, rate = warnings(recipe=str(RECIPES / "panda-7b-as-coded.yaml"))
    assert warmup == "stages.pretrain: warm-up takes 1,157 of 1,809 steps (64%): lower optimizer.warmup."
    assert "the learning rate is 9.9e-06 and not yet the final 0: optimizer.schedule_steps is 115,721" in rate
    assert warnings(recipe=str(RECIPES / "panda-7b.yaml")) == []


def test_steps_are_known_from_steps_or_from_rows_of_one_document() -> None:
    recipe = load_recipe(str(RECIPES / "panda-7b.yaml"))
    stage = recipe.stages["pretrain"]
    assert known_steps(recipe, stage, "chinese") == 1809  # the last step is not full
    packed = load_recipe(str(RECIPES / "panda-7b.yaml"), ["corpora.chinese.packing=best_fit"])
    assert known_steps(packed, stage, "chinese") is None
    world = load_recipe("microworld")
    assert known_steps(world, world.stages["pretrain"], "chinese") == 900
    assert known_steps(world, world.stages["instruct"], "coig") is None


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("base.scratch.train.steps=50", "base.scratch.train: only 50 steps"),
        ("stages.pretrain.optimizer.warmup=200", "stages.pretrain: warm-up takes 200 of 900 steps (22%)"),
        ("corpora.chinese.held_out.documents=0", "evaluate.bits_per_byte: corpus 'chinese' keeps no documents"),
        (
            "stages.pretrain.sequence_length=512",
            "stages.pretrain.sequence_length: 512 is more than the model's 256 positions",
        ),
    ],
)
def test_what_looks_wrong_is_named_with_its_field(override: str, sentence: str) -> None:
    assert any(w.startswith(sentence) for w in warnings(override))


def test_a_source_with_held_out_documents_of_its_own_is_enough() -> None:
    own = "corpora.chinese.sources.wiki2019zh.held_out.documents=5"
    assert warnings("corpora.chinese.held_out.documents=0", own) == []


def test_missing_files_are_told_with_the_way_to_name_them(tmp_path: Path) -> None:
    overrides = [f"paths.data={tmp_path}"]
    recipe = load_recipe(str(RECIPES / "tiny-zh.yaml"), overrides)
    (note,) = missing_files(recipe)
    assert "english.wiki, english.web, english.prose, chinese.wiki and 6 more" in note
    assert "PANDA_DATA=FOLDER or paths.data=FOLDER" in note
    for corpus in recipe.corpora.values():
        for source in corpus.sources.values():
            path = Path(str(source.files).replace("${data}", str(tmp_path)).replace("*", "x"))
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert missing_files(recipe) == []
    assert missing_files(load_recipe("microworld")) == []


def test_several_recipes_are_checked_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(RECIPES / f"panda-7b{x}.yaml") for x in ("", "-as-coded")]
    with pytest.raises(SystemExit) as e:
        main(["check", *paths, "seed=1"])
    assert e.value.code == 0
    out = capsys.readouterr().out
    assert "panda-7b.yaml: ok (panda-7b: 1 corpus, 1 stage)" in out
    assert "  warning: stages.pretrain: warm-up takes 1,157" in out
    with pytest.raises(SystemExit):
        main(["check", *paths, "--json"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["ok"], first["warnings"]) == (True, [])
    assert len(second["warnings"]) == 2


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_passes_panda_check_without_torch(path: Path) -> None:
    code = (
        "import sys; from pandallm.cli import main\n"
        "try: main(['check', sys.argv[1], '--json'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["ok"]
    # The one whose fault is the point warns; the others do not.
    assert bool(found["warnings"]) == (path.stem == "panda-7b-as-coded")

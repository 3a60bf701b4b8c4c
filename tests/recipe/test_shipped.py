"""The recipes that ship say what the paper and its code say."""

from pathlib import Path

import pytest

from pandallm.recipe.load import load_recipe
from pandallm.recipe.spec import Recipe

FOLDER = Path(__file__).parents[2] / "recipes"
DECLARED = 14_812_376  # examples, by the configuration of 2023


def shipped(name: str) -> Recipe:
    return load_recipe(str(FOLDER / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "sequences", "steps"),
    [("panda-7b", 8192, 1808), ("panda-7b-as-coded", 8192, 1808), ("panda-13b", 4096, 3616)],
)
def test_the_papers_first_stage(name: str, sequences: int, steps: int) -> None:
    recipe = shipped(name)
    stage = recipe.stages["pretrain"]
    assert recipe.corpora[stage.corpus].packing == "one_per_sequence"
    assert (stage.documents, stage.batch_sequences, stage.sequence_length) == (DECLARED, sequences, 2048)
    assert DECLARED // sequences == steps
    optimizer = stage.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.eps, optimizer.clip) == (1e-5, (0.9, 0.99), 1e-6, 5.0)


def test_as_coded_differs_from_as_described_in_the_schedule_alone() -> None:
    described, coded = (shipped(n).model_dump() for n in ("panda-7b", "panda-7b-as-coded"))
    optimizer = coded["stages"]["pretrain"]["optimizer"]
    assert (optimizer["schedule_steps"], optimizer["warmup"]) == (115_721, 1157)
    optimizer |= {"schedule_steps": None, "warmup": 0.01}
    coded |= {"name": described["name"], "description": described["description"]}
    assert coded == described


@pytest.mark.parametrize(("size", "lr"), [("7b", 3e-5), ("13b", 1e-5)])
def test_the_second_stage_follows_the_first_of_the_plain_recipe(size: str, lr: float) -> None:
    instruct, plain = shipped(f"panda-instruct-{size}"), shipped(f"panda-{size}")
    assert instruct.stages["pretrain"] == plain.stages["pretrain"]  # so the store shares it
    assert instruct.corpora["chinese"] == plain.corpora["chinese"]
    assert instruct.base == plain.base
    stage = instruct.stages["instruct"]
    assert (stage.epochs, stage.batch_sequences, stage.optimizer.lr) == (5, 128, lr)


def test_the_cure_reads_coig_five_times_as_often_and_else_equals_the_mix() -> None:
    plain, cured = shipped("panda-7b-mix"), shipped("panda-7b-mix-upsampled")
    assert plain.stages == cured.stages
    sizes = {
        n: s.expected.records * (s.expected.bytes_per_record or 0)
        for n, s in plain.corpora["mix"].sources.items()
        if s.expected
    }
    shares = {n: s.share or 0 for n, s in cured.corpora["mix"].sources.items()}
    assert sum(shares.values()) == pytest.approx(1)
    natural = sizes["coig"] / sum(sizes.values())
    assert 4.5 < shares["coig"] / natural < 5.5


@pytest.mark.parametrize(
    "name", [*sorted(str(p) for p in FOLDER.glob("*.yaml")), "microworld"], ids=lambda n: Path(n).stem
)
def test_every_source_of_a_stage_can_be_planned_without_its_files(name: str) -> None:
    recipe = load_recipe(name)
    for corpus in recipe.corpora.values() if recipe.stages else ():
        assert all(s.expected for s in corpus.sources.values())


def test_expected_records_of_the_microworld_are_those_it_makes() -> None:
    recipe = load_recipe("microworld")
    world, corpora = recipe.world, recipe.corpora
    assert world is not None
    made = [world.english_documents, world.wiki_pages, world.news_articles, world.baike_questions]
    made += [world.webtext_answers, world.translations, world.english_replay, world.instructions]
    expected = [s.expected.records for c in corpora.values() for s in c.sources.values() if s.expected]
    assert expected == made


def test_coig_has_the_papers_five_parts() -> None:
    parts = [67_798, 63_532, 3_000 + 19_464, 11_737, 13_649]
    source = shipped("panda-instruct-7b").corpora["coig"].sources["coig"]
    assert source.expected is not None
    assert source.expected.records == sum(parts)


def test_the_authors_later_model_follows_its_file() -> None:
    recipe = shipped("llama2-13b-zh")
    assert recipe.base.extend is not None
    assert 32_000 + recipe.base.extend.size == 79_458
    stage, o = recipe.stages["pretrain"], recipe.stages["pretrain"].optimizer
    assert stage.batch_sequences == 16 * 1 * 128
    assert (o.lr, o.betas, o.eps, o.weight_decay, o.clip, o.warmup) == (1e-5, (0.9, 0.96), 1e-6, 0.01, 1.0, 500)


@pytest.mark.parametrize("name", [*sorted(p.stem for p in FOLDER.glob("*.yaml")), "microworld"])
def test_every_shipped_recipe_passes_panda_plan_without_torch(name: str, tmp_path: Path) -> None:
    import json
    import os
    import subprocess
    import sys

    code = (
        "import sys; from pandallm.cli import main\n"
        "try: main(['plan', *sys.argv[1:], '--json'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    recipe = name if name == "microworld" else str(FOLDER / f"{name}.yaml")
    devices = (
        "32xA100-80G"
        if name == "panda-65b"
        else "16xA100-80G"
        if "b" in name and name != "smollm2-zh"
        else "1xA100-80G"
    )
    arguments = [recipe, f"runtime.store={tmp_path}", "--on", devices]
    environment = os.environ | {"PANDA_DATA": str(tmp_path / "nothing"), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    plan = json.loads(done.stdout)
    stages = load_recipe(recipe).stages
    assert [s["name"] for s in plan["stages"]][-len(stages) :] == list(stages)
    assert all(s["fits"] for s in plan["stages"])


def test_gpus_that_are_not_here_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    from pandallm.errors import BadInput
    from pandallm.pipeline.run import Run

    folders = [f"runtime.store={tmp_path / 'store'}", f"runtime.runs={tmp_path / 'runs'}"]
    recipe = load_recipe("microworld", ["runtime.gpus=2", "runtime.device=cpu", *folders])
    with pytest.raises(BadInput, match=r"runtime\.gpus: 2, but training is on the CPU here"):
        Run(recipe).execute()
    assert not list(tmp_path.iterdir())

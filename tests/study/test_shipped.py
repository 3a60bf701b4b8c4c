"""The studies that ship: they can be read, their arms differ, and what arms can share they share."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pandallm.pipeline.graph import stage_keys
from pandallm.study.arms import Arm, make_arms
from pandallm.study.load import load_study

FOLDER = Path(__file__).parents[2] / "studies"
STUDIES = sorted(FOLDER.glob("*.yaml"))


def arms(name: str) -> dict[str, Arm]:
    return {arm.name: arm for arm in make_arms(load_study(FOLDER / f"{name}.yaml"))}


def distinct(name: str, *stages: str) -> list[int]:
    """How many different stages of each name the arms of a study have, at one seed."""
    keys = [stage_keys(arm.run(1, "study")) for arm in arms(name).values()]
    return [len({k[stage] for k in keys if stage in k}) for stage in stages]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_shipped_study_passes_panda_check_without_torch(path: Path) -> None:
    code = (
        "import sys; from pandallm.cli import main\n"
        "try: main(['check', sys.argv[1], '--json'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["name"] == path.stem
    # Arms with few steps are the point of some studies; nothing else may look wrong.
    assert [w for w in found["warnings"] if "only" not in w] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_names_a_metric_and_a_claim_of_each_contrast(path: Path) -> None:
    spec = load_study(path).spec
    assert spec.primary in spec.metrics
    assert spec.contrasts
    assert all(c.claim for c in spec.contrasts.values())
    assert any(c.metric in (None, spec.primary) for c in spec.contrasts.values())


@pytest.mark.parametrize(
    "path", [p for p in STUDIES if "-135m" not in p.stem and "-7b" not in p.stem], ids=lambda p: p.stem
)
def test_small_studies_run_on_the_microworld_with_five_seeds(path: Path) -> None:
    study = load_study(path)
    assert len(study.spec.seeds) == 5
    assert all(arm.recipe.world for arm in make_arms(study))


def test_one_pretraining_serves_all_instruction_arms() -> None:
    for name in ("instruction-quantity", "instruction-language", "answer-noise", "coig-subsets"):
        assert distinct(name, "train tokenizer", "train base", "train pretrain") == [1, 1, 1]
        assert distinct(name, "train instruct") == [len(arms(name))]
    assert distinct("instruction-quantity-135m", "train pretrain", "train instruct") == [1, 3]
    assert distinct("coig-subsets-7b", "train pretrain", "train instruct") == [1, 6]


def test_what_is_pretrained_on_changes_neither_tokenizer_nor_base() -> None:
    for name in ("pretraining-tokens", "chinese-share", "english-replay", "dedup", "parallel-text", "staging"):
        assert distinct(name, "train tokenizer", "train base") == [1, 1], name
        pretrained = distinct(name, "train pretrain")[0]
        assert pretrained == (2 if name == "staging" else len(arms(name))), name


def test_arms_of_the_staging_study_read_as_many_tokens() -> None:
    for name in ("staging", "staging-135m"):
        totals = {sum(s.tokens or 0 for s in arm.recipe.stages.values()) for arm in arms(name).values()}
        assert len(totals) == 1


def test_the_paper_s_share_of_instructions_is_kept() -> None:
    """Five epochs of 179,180 records after 14.8 million examples: 5.7 % of all that is read."""
    two = arms("staging")["staging-two-stage"].recipe.stages
    share = (two["instruct"].tokens or 0) / sum(s.tokens or 0 for s in two.values())
    assert share == pytest.approx(5 * 179_180 / (14_812_376 + 5 * 179_180), abs=0.003)


def test_replay_keeps_the_chinese_tokens() -> None:
    for arm in arms("english-replay").values():
        sources = arm.recipe.corpora["chinese"].sources
        english = sources["english"].share or 0 if "english" in sources else 0
        assert (arm.recipe.stages["pretrain"].steps or 0) * (1 - english) == pytest.approx(450, abs=1)


def test_the_recipe_of_the_studies_is_the_shipped_microworld_but_for_its_words() -> None:
    from pandallm.recipe.load import load_recipe

    ours = load_recipe(str(FOLDER / "recipes" / "microworld.yaml"))
    shipped = load_recipe("microworld")
    assert ours.stages == shipped.stages
    assert ours.base.scratch is not None
    assert shipped.base.scratch is not None
    assert ours.base.scratch.architecture == shipped.base.scratch.architecture
    assert ours.base.scratch.train == shipped.base.scratch.train
    assert {n: c for n, c in ours.corpora.items() if n != "words"} == shipped.corpora


def test_the_readme_lists_every_study_and_no_other() -> None:
    import re

    listed = re.findall(r"^\| `([\w-]+)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(p.stem for p in STUDIES)


@pytest.mark.parametrize("path", [p for p in STUDIES if p.stem.endswith(("-135m", "-7b"))], ids=lambda p: p.stem)
def test_studies_for_gpus_are_planned_without_their_data(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandallm.study.plan import plan_study

    monkeypatch.setenv("PANDA_DATA", str(tmp_path / "nothing"))
    study = load_study(path)
    plan = plan_study(study, make_arms(study, [f"runtime.store={tmp_path}"]), on="16xA100-80G")
    assert plan["runs"] == len(plan["arms"]) * 3
    assert plan["costs"]["fits"]
    assert 0 < plan["costs"]["hours"] <= plan["costs"]["hours_without_sharing"]
    if path.stem.endswith("-135m"):  # meant for twenty minutes of one GPU
        one = plan_study(study, make_arms(study, [f"runtime.store={tmp_path}"]), on="1xA100-80G")
        assert one["costs"]["hours"] < 1 / 3


def test_a_small_study_is_planned_with_the_least_effect_it_finds(tmp_path: Path) -> None:
    from pandallm.study.plan import plan_study

    study = load_study(FOLDER / "answer-noise.yaml")
    study.spec = study.spec.model_copy(update={"seeds": (1,)})
    plan = plan_study(study, make_arms(study, [f"runtime.store={tmp_path}"]), costs=False)
    made = {s["kind"]: s["made"] for s in plan["stages"]}
    assert (made["train"], made["tokenizer"]) == (2 + 4, 1)  # base and pretraining once, instructions four times
    facts = next(d for d in plan["detectable"] if d["metric"] == "facts")
    assert (facts["questions"], facts["clusters"]) == (288, 72)

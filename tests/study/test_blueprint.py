"""The blueprint: made of results by a command, the committed pages kept in step."""

import re
from pathlib import Path
from typing import get_args

import pytest

from pandallm.cli import main
from pandallm.report.blueprint import SUBJECTS
from pandallm.store import read_json
from pandallm.study.blueprint import blueprint_pages
from pandallm.study.publish import publish_study
from pandallm.study.spec import AnyFactor, Subject
from tests.study.fake import contrast, fake_study
from tests.study.studies import study

ROOT = Path(__file__).parents[2]


def test_the_committed_pages_are_what_the_command_makes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made again: panda study blueprint benchmarks/results/studies --studies studies --out docs"""
    monkeypatch.chdir(ROOT)
    made = blueprint_pages([Path("benchmarks/results/studies")], Path("studies"), Path("docs"))
    assert sorted(made) == [Path("docs/blueprint.md"), Path("docs/blueprint.zh-CN.md")]
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is not what the results say; run the command above"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A study of which a claim is reproduced, one refuted, one without any run; in tmp_path/results/fake."""
    folder = fake_study(
        tmp_path / "runs" / "fake",
        lambda level, seed: {"low": 0.3, "high": 0.5, "broken": 0.0}[level] + 0.01 * seed,
        lambda level, seed: 1.0 + 0.001 * seed,
        levels=("low", "high", "broken"),
        contrasts={
            "more": {**contrast("low", "high", "better", claim="more is *better*"), "claim_zh": "多则更好"},
            "less": contrast("low", "high", "better", "chinese", claim="and reads Chinese better"),
            "gone": contrast("low", "broken", "worse", claim="too much is worse"),
        },
        failed=tuple(("broken", seed) for seed in range(1, 6)),
    )
    publish_study(folder, tmp_path / "results")
    return tmp_path


def test_each_sentence_follows_from_its_contrast_and_links_to_its_study(published: Path) -> None:
    pages = blueprint_pages([published / "results"], None, published / "docs")
    english, chinese = (pages[published / "docs" / name] for name in ("blueprint.md", "blueprint.zh-CN.md"))
    lines = [line for line in english.splitlines() if line.startswith("- **")]
    assert len(lines) == 3
    assert all(line.endswith("[fake](../results/fake/report.md)") for line in lines)
    assert lines[0].startswith(
        "- **For accuracy on facts, choose `dose: high` over `dose: low`.** Claim “more is \\*better\\*”: reproduced."
    )
    c = read_json(published / "results" / "fake" / "results.json")["contrasts"][0]
    effect, low, high = (f"{100 * c[n]:+.1f}" for n in ("effect", "low", "high"))
    assert f"`dose: high` against `dose: low`: {effect} points (95 % interval {low} to {high}, p < 0.001" in lines[0]
    assert (
        "expect no gain that matters from `dose: high` over `dose: low`.** Claim “and reads Chinese better”: refuted."
        in lines[1]
    )
    assert (
        "`dose: broken` against `dose: low` was not measured: no seed has both.** Claim “too much is worse”: inconclusive. ["
        in lines[2]
    )
    assert "10 of 15 runs complete, 5 failed" in english
    assert "选 `dose: high`，不选 `dose: low`。** 论断“多则更好”：复现。" in chinese
    assert "Studies run: 1, with 3 claims: 1 reproduced, 1 refuted, 1 inconclusive. Written and not run: 0." in english


def test_what_was_not_run_and_where_nothing_was_found_is_said(published: Path) -> None:
    files = published / "studies"
    files.mkdir()
    study(
        files,
        {"d": {"kind": "dedup", "corpus": "chinese", "levels": ["none", "exact"]}},
        name="copies",
        description="Copies",
    )
    (english, chinese) = blueprint_pages([published / "results"], files, published / "docs").values()
    assert "Written and not run: 1." in english
    quality = english.split("## Quality")[1].split("\n## ")[0]
    assert quality.strip().splitlines() == [
        "Nothing was run on this subject, so nothing can be said.",
        "",
        "- Not run: [copies](../studies/study.yaml). Copies",
    ]
    assert "未运行：[copies](../studies/study.yaml)。Copies" in chinese
    folder = fake_study(
        published / "runs" / "noise",
        lambda level, seed: 0.5 + (0.1 * (-1) ** seed if level == "high" else 0.0),
        lambda level, seed: 1.0,
        name="noise",
    )
    publish_study(folder, published / "unsure")
    page = blueprint_pages([published / "unsure"], None, published)[published / "blueprint.md"]
    assert "Nothing was found: all claims on this subject are inconclusive." in page
    assert "nothing can be said of `dose: high` against `dose: low`" in page
    assert re.search(r"an effect of \d+\.\d points would have been found", page)


def test_the_commands(published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    for arguments, said in (
        (["publish", "runs/fake"], "benchmarks/results/studies/fake\n"),
        (["blueprint", "benchmarks/results/studies", "--out", "docs"], "docs/blueprint.md\ndocs/blueprint.zh-CN.md\n"),
    ):
        with pytest.raises(SystemExit) as e:
            main(["study", *arguments])
        assert not e.value.code
        assert capsys.readouterr().out == said
    assert (published / "docs" / "blueprint.zh-CN.md").is_file()


def test_subjects_are_those_of_the_settings_and_every_kind_has_one() -> None:
    assert list(SUBJECTS) == list(get_args(Subject))
    kinds = {get_args(f.model_fields["kind"].annotation)[0] for f in get_args(get_args(AnyFactor)[0])}
    named = [kind for kinds_of in SUBJECTS.values() for kind in kinds_of]
    assert len(named) == len(set(named))
    assert set(named) == kinds - {"field", "set"}

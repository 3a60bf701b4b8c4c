"""What is kept of a study: numbers and tables, nothing of the machine."""

import json
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.store import read_json, write_json
from pandallm.study.publish import publish_study, published, without_paths
from pandallm.study.report import write_study_report
from pandallm.study.results import compute_results
from pandallm.study.verify import verify_study
from tests.study.fake import fake_study


def small(folder: Path, **more: object) -> Path:
    return fake_study(folder, lambda level, seed: 0.5, lambda level, seed: 1.0, seeds=2, questions=8, **more)  # type: ignore[arg-type]


def test_numbers_and_tables_are_kept_and_no_path(tmp_path: Path) -> None:
    folder = small(tmp_path / "runs" / "fake", failed=(("high", 2),))
    outcome = folder / "arms" / "dose-high-seed2" / "outcome.json"
    write_json(outcome, read_json(outcome) | {"error": f"It broke (see {folder}/error.txt)."})
    study = read_json(folder / "study.json")
    write_json(folder / "study.json", study | {"recipe": str(tmp_path / "my.yaml")})
    target = publish_study(folder, tmp_path / "kept")
    assert target == tmp_path / "kept" / "fake"
    assert sorted(p.name for p in target.iterdir()) == ["report.md", "report.tex", "results.json", "study.json"]
    kept, full = read_json(target / "results.json"), compute_results(folder)
    assert kept["contrasts"] == full["contrasts"]
    assert kept["recipe"] == "my.yaml"
    assert kept["arms"][1]["runs"][1]["error"] == "It broke (see error.txt)."
    assert "It broke (see error.txt)." in (target / "report.md").read_text(encoding="utf-8")
    assert "几个苹果" in (folder / "arms" / "dose-low-seed1" / "questions.jsonl").read_text(encoding="utf-8")
    for path in target.iterdir():
        assert str(tmp_path) not in path.read_text(encoding="utf-8")
        assert "几个苹果" not in path.read_text(encoding="utf-8"), "no text of a question"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/me/runs/a.txt", "a.txt"),
        ("(see ~/runs/a.txt)", "(see a.txt)"),
        ("1/2 and recipes/microworld.yaml", "1/2 and recipes/microworld.yaml"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_only_paths_from_the_root_are_cut(text: str, kept: str) -> None:
    assert without_paths({"a": [text, 1, None]}) == {"a": [kept, 1, None]}


def test_a_study_of_which_nothing_is_complete(tmp_path: Path) -> None:
    folder = small(tmp_path / "fake", failed=tuple((level, seed) for level in ("low", "high") for seed in (1, 2)))
    with pytest.raises(BadInput, match="no run of this study is complete yet"):
        publish_study(folder, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_published_results_are_not_overwritten_by_a_report_without_runs(tmp_path: Path) -> None:
    target = publish_study(small(tmp_path / "runs"), tmp_path)
    before = (target / "results.json").read_bytes()
    for work in (write_study_report, verify_study):
        with pytest.raises(BadInput, match=r"published results of a study without its runs"):
            work(target)
    assert (target / "results.json").read_bytes() == before


def test_studies_are_found_one_by_one_and_in_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        publish_study(small(tmp_path / "runs" / name, name=name), tmp_path / "kept")
    kept = tmp_path / "kept"
    assert [r["name"] for _, r in published([kept])] == ["a", "b"]
    assert published([kept / "b", kept / "a"]) == published([kept])
    publish_study(small(tmp_path / "runs" / "a", name="a"), tmp_path / "other")
    with pytest.raises(BadInput, match="both of study 'a'"):
        published([kept, tmp_path / "other"])
    with pytest.raises(BadInput, match="nowhere is not a folder"):
        published([tmp_path / "nowhere"])


def test_what_is_committed_is_small_and_belongs_to_its_file() -> None:
    """The studies in benchmarks/results/studies: their claims, levels and metrics are those of the files in studies/."""
    from pandallm.report.study_text import study_latex, study_markdown
    from pandallm.study.arms import make_arms
    from pandallm.study.folder import levels_of
    from pandallm.study.load import load_study

    root = Path(__file__).parents[2]
    for folder, results in published([root / "benchmarks" / "results" / "studies"]):
        assert sum(p.stat().st_size for p in folder.iterdir()) < 500_000
        assert (folder / "report.md").read_text(encoding="utf-8") == study_markdown(results)
        assert (folder / "report.tex").read_text(encoding="utf-8") == study_latex(results)
        study = load_study(root / "studies" / f"{results['name']}.yaml")
        spec = study.spec
        stored = read_json(folder / "study.json")
        assert stored["contrasts"] == json.loads(json.dumps({n: c.model_dump() for n, c in spec.contrasts.items()}))
        assert stored["metrics"] == json.loads(json.dumps({n: m.model_dump() for n, m in spec.metrics.items()}))
        assert (stored["seeds"], stored["primary"]) == (list(spec.seeds), spec.primary)
        assert {n: f["levels"] for n, f in stored["factors"].items()} == levels_of(make_arms(study))

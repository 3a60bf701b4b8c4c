"""`panda report A B`: runs.json and the page from run folders, and back by `panda verify`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pandallm.cli import main
from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.compare_runs import name_runs, report_runs
from pandallm.pipeline.verify_compare import verify_folder
from pandallm.pipeline.verify_runs import verify_runs
from pandallm.store import read_json, write_json, write_text
from tests.report.example_runs import TASK, write_finished_run


def half(i: int) -> bool:
    return i % 2 == 0


def most(i: int) -> bool:
    return i % 10 != 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs in `runs`, and in `page` what reporting them wrote."""
    root = tmp_path_factory.mktemp("made")
    runs = [
        write_pair(root / "runs", "kite-seed1", half),
        write_pair(root / "runs", "kite-seed2", most, seed=2, bits=1.5),
    ]
    report_runs(runs, root / "page" / "runs.html")
    return root


def write_pair(root: Path, name: str, right: Any, **more: Any) -> Path:
    return write_finished_run(root / name, right, **more)


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "elsewhere")


@pytest.fixture
def numbers(made: Path) -> Any:
    return read_json(made / "page" / "runs.json")


def test_headlines_differences_and_bits_are_those_of_the_rows(made: Path, numbers: Any) -> None:
    assert [r["name"] for r in numbers["runs"]] == ["kite-seed1", "kite-seed2"]
    assert [(r["model"], r["headline"]["accuracy"], r["headline"]["chance"]) for r in numbers["runs"]] == [
        ("instruct", 0.5, 0.25),
        ("instruct", 0.9, 0.25),
    ]
    (pair,) = numbers["headline"]["pairs"]
    assert (pair["a"], pair["b"], pair["difference"], pair["verdict"]) == ("kite-seed1", "kite-seed2", 0.4, "better")
    assert pair["low"] < 0.4 < pair["high"]
    assert numbers["headline"]["n"] == 40
    assert numbers["headline"]["clusters"] == 20
    (cell,) = numbers["comparison"]["cells"]
    assert cell["prompts"] == ["listed", "alone"]
    assert cell["pairs"][0]["difference"] == 0.4
    whole = [line for line in numbers["bits_per_byte"] if line["corpus"] == "all"]
    assert [line["language"] for line in whole] == ["zh", "en"]
    for line in whole:
        assert line["changes"][0] is None
        assert line["changes"][1]["change"] == pytest.approx(-0.25, abs=1e-5)
        assert line["changes"][1]["low"] <= line["changes"][1]["change"] <= line["changes"][1]["high"]
    stored = {  # a run's own numbers are those of its scores.json
        (b["source"], b["language"]): b["bits_per_byte"]
        for b in read_json(made / "runs" / "kite-seed1" / "scores.json")["bits_per_byte"]
        if b["model"] == "instruct"
    }
    assert {(n["source"], n["language"]): n["scores"][0]["bits_per_byte"] for n in numbers["bits_per_byte"]} == stored
    assert [line["prompt"] for line in numbers["table"]] == ["listed", "alone"]
    assert [s["accuracy"] for s in numbers["table"][0]["scores"]] == [0.5, 0.9]
    assert numbers["stages"][0]["runs"][1]["exposures"] == 600
    (recipe,) = numbers["recipes"]
    assert [(s["field"], s["a"], s["b"]) for s in recipe["settings"]] == [("seed", 1, 2)]


def test_every_number_is_rebuilt_also_after_a_move(copied: Path) -> None:
    facts = verify_runs(copied / "page" / "runs.json")
    assert facts["rows"] == 2 * 160
    assert facts["numbers"] > 300
    assert verify_folder(copied / "page") == verify_folder(copied / "page" / "runs.html") == facts


@pytest.mark.parametrize(
    "where",
    [
        ("runs", 0, "headline", "chance"),
        ("headline", "pairs", 0, "p_holm"),
        ("bits_per_byte", 0, "changes", 1, "low"),
        ("table", 1, "scores", 0, "accuracy"),
        ("stages", 0, "runs", 0, "seconds"),
        ("settings", "margin"),
    ],
)
def test_a_changed_number_is_found(where: tuple[Any, ...], copied: Path) -> None:
    path = copied / "page" / "runs.json"
    stored = read_json(path)
    at = stored
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] += 0.001
    write_json(path, stored)
    with pytest.raises(PandaError, match=rf"runs\.json.*{where[-1]} is .* but the rows give"):
        verify_runs(path)


def test_a_changed_or_missing_run_is_found(copied: Path) -> None:
    path, run = copied / "page" / "runs.json", copied / "runs" / "kite-seed2"
    scores = read_json(run / "scores.json")
    scores["headline"]["instruct"]["accuracy"] += 0.01
    write_json(run / "scores.json", scores)
    with pytest.raises(PandaError, match=r"scores\.json has changed since"):
        verify_runs(path)
    # A report of false scores is found out all the same: scores are rebuilt from the rows.
    report_runs([copied / "runs" / "kite-seed1", run], copied / "page" / "runs.html")
    with pytest.raises(PandaError, match=r"scores\.json: headline.*but the rows give"):
        verify_runs(path)
    shutil.rmtree(run)
    with pytest.raises(BadInput, match="does not exist; keep both where they were"):
        verify_runs(path)
    write_json(path, {"runs": []})
    with pytest.raises(BadInput, match="is not what `panda report` writes of several runs"):
        verify_runs(path)


def test_runs_of_one_name_are_told_apart_and_one_run_is_not_taken_twice(tmp_path: Path) -> None:
    a, b, c = (tmp_path / x / "kite-seed1" for x in ("one", "two", "two/deep"))
    assert name_runs([a, b]) == ["one/kite-seed1", "two/kite-seed1"]
    assert name_runs([a, tmp_path / "other"]) == ["kite-seed1", "other"]
    assert name_runs([b, c]) == ["two/kite-seed1", "deep/kite-seed1"]
    with pytest.raises(BadInput, match="is given twice; name each run once"):
        name_runs([a, tmp_path / "one" / ".." / "one" / "kite-seed1"])


def test_runs_without_a_question_in_common_still_show_what_they_have(tmp_path: Path) -> None:
    runs = [write_pair(tmp_path, w, half, world=w) for w in ("east", "west")]
    numbers, page = report_runs(runs, tmp_path / "runs.html")
    assert numbers["comparison"] is None
    assert numbers["headline"] is None
    (entry,) = numbers["not_compared"]
    assert entry["run"] == "west"
    assert "have no question in common" in entry["why"]
    assert "no question in common" in page.read_text(encoding="utf-8")
    assert [r["headline"]["accuracy"] for r in numbers["runs"]] == [0.5, 0.5]
    assert all(line["changes"][1] is None for line in numbers["bits_per_byte"])
    verify_runs(tmp_path / "runs.json")


def test_a_run_with_other_questions_leaves_the_rest_compared(tmp_path: Path) -> None:
    runs = [write_pair(tmp_path, n, right, world=w) for n, right, w in (("a", half, ""), ("b", half, "far"), ("c", most, ""))]  # fmt: skip
    numbers, _ = report_runs(runs, tmp_path / "runs.html")
    assert [entry["run"] for entry in numbers["not_compared"]] == ["b"]
    assert [(p["a"], p["b"], p["difference"]) for p in numbers["headline"]["pairs"]] == [("a", "c", 0.4)]
    assert numbers["comparison"]["models"] == ["a", "c"]
    assert verify_runs(tmp_path / "runs.json")["numbers"] > 300


def test_other_headlines_are_told_and_their_shared_tasks_compared(tmp_path: Path) -> None:
    runs = [
        write_pair(tmp_path, "both", half),
        write_pair(tmp_path, "listed", most, headline={"tasks": [TASK], "prompts": ["listed"]}),
    ]
    numbers, page = report_runs(runs, tmp_path / "runs.html")
    assert not numbers["same_headline"]
    assert numbers["headline"] is None
    assert numbers["comparison"]["cells"][0]["pairs"][0]["difference"] == 0.4
    assert "The headlines are not the same" in page.read_text(encoding="utf-8")


def test_runs_that_measure_bits_alone_and_runs_with_nothing(tmp_path: Path) -> None:
    runs = [write_pair(tmp_path, n, half, scored=False) for n in ("a", "b")]
    numbers, _ = report_runs(runs, tmp_path / "runs.html")
    assert numbers["not_compared"] == [{"run": "b", "why": "a was asked no question."}]
    assert len(numbers["bits_per_byte"]) == 5
    assert verify_runs(tmp_path / "runs.json")["rows"] == 0
    bare = [write_pair(tmp_path, n, half, scored=False, documents=0) for n in ("c", "d")]
    with pytest.raises(BadInput, match="Nothing of these runs can be set side by side: c was asked no question"):
        report_runs(bare, tmp_path / "none" / "runs.html")
    assert not (tmp_path / "none").exists()


def test_a_recipe_that_this_version_cannot_read_is_told(tmp_path: Path) -> None:
    runs = [write_pair(tmp_path, "a", half), write_pair(tmp_path, "b", half, recipe={"gone": 1})]
    numbers, page = report_runs(runs, tmp_path / "runs.html")
    assert "unknown field 'gone'" in numbers["recipes"][0]["why_not"]
    assert "The recipes cannot be set side by side" in page.read_text(encoding="utf-8")


def test_links_lead_to_pages_that_are_there_and_go_with_no_text(copied: Path) -> None:
    runs = [copied / "runs" / "kite-seed1", copied / "runs" / "kite-seed2"]
    write_text(runs[0] / "report.html", "x")
    page = report_runs(runs, copied / "page" / "runs.html")[1].read_text(encoding="utf-8")
    assert 'href="../runs/kite-seed1/report.html"' in page
    assert "kite-seed2/report.html" not in page
    page = report_runs(runs, copied / "page" / "runs.html", with_links=False)[1].read_text(encoding="utf-8")
    assert "report.html" not in page
    main_ok(["compare", *map(str, runs), "--out", str(copied / "page" / "compare.html")])
    assert 'href="compare.html"' in report_runs(runs, copied / "page" / "runs.html")[1].read_text(encoding="utf-8")


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert not e.value.code


def test_the_command_writes_into_the_working_folder_and_verify_reads_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied / "runs")
    main_ok(["report", "kite-seed1", "kite-seed2"])
    out = capsys.readouterr().out
    assert "+40.0" in out
    assert "better" in out
    assert "-25.0%" in out
    main_ok(["report", "kite-seed1", "kite-seed2", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("page") == "runs.html"
    assert printed == read_json(Path("runs.json"))
    main_ok(["verify", "runs.json"])
    assert "numbers rebuilt from 320 rows, all equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["kite-seed1", "nowhere"], "nowhere is not a run folder"),
        (["kite-seed1", "./kite-seed1"], "kite-seed1 is given twice"),
        (["kite-seed1", "unscored"], "unscored holds no scores.json, so there is nothing to report"),
        (["kite-seed1", "untold"], "untold holds no recipe.yaml, so it is no finished run"),
        (["kite-seed1", "kite-seed2", "--out", "."], "--out . is a folder"),
        (["kite-seed1", "kite-seed2", "--out", "x.json"], "--out x.json is where numbers go"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    arguments: list[str],
    sentence: str,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(copied / "runs")
    shutil.copytree("kite-seed1", "unscored")
    Path("unscored/scores.json").unlink()
    shutil.copytree("kite-seed1", "untold")
    Path("untold/recipe.yaml").unlink()
    with pytest.raises(SystemExit) as e:
        main(["report", *arguments])
    err = capsys.readouterr().err
    assert e.value.code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs.html").exists()
    assert not Path("runs.json").exists()
    assert not Path("x.json").exists()

"""`panda compare` from folders to files, and back by verify_comparison."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from pandallm.cli import main
from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.spec import CompareSpec
from pandallm.pipeline.compare import compare_folders, read_models
from pandallm.pipeline.show_compare import print_comparison
from pandallm.pipeline.verify_compare import verify_comparison
from pandallm.store import read_json, read_jsonl, write_json, write_jsonl, write_text
from tests.evaluate.compare_example import question, rows_of, write_folder, write_models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders, and in `page` what comparing them wrote."""
    root = tmp_path_factory.mktemp("made")
    folders = write_models(root, completion="选A")
    compare_folders([str(f) for f in folders], CompareSpec(), root / "page" / "compare.html")
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "elsewhere")


def write_run(folder: Path) -> Path:
    questions = [question(i) for i in range(12)]
    rows = [r for m in ("base", "tuned") for r in rows_of(m, questions, lambda i, _, m=m: i % 2 == 0 or m == "tuned")]
    write_folder(folder, rows, questions)
    (folder / "models" / "tuned").mkdir(parents=True)
    (folder / "evaluate.yaml").unlink()
    write_text(folder / "recipe.yaml", "evaluate: {limit: {likelihood: 12}, normalize: bytes}\n")
    return folder


def test_every_number_is_rebuilt_also_after_a_move(copied: Path) -> None:
    facts = verify_comparison(copied / "page")
    assert facts["rows"] == 3 * 40 * 3
    assert facts["numbers"] > 150
    assert verify_comparison(copied / "page" / "comparison.json") == facts


def test_a_changed_number_or_row_is_found(copied: Path) -> None:
    path = copied / "page" / "comparison.json"
    stored = read_json(path)
    stored["cells"][0]["pairs"][1]["difference"] += 0.001
    write_json(path, stored)
    with pytest.raises(
        PandaError, match=r"comparison.json.*cells\[0\]\.pairs\[1\]\.difference is .* but the rows give"
    ):
        verify_comparison(path)
    rows = list(read_jsonl(copied / "eval-base" / "rows.jsonl"))
    write_jsonl(copied / "eval-base" / "rows.jsonl", rows[:-1])
    with pytest.raises(PandaError, match="has changed since"):
        verify_comparison(path)
    shutil.rmtree(copied / "eval-base")
    with pytest.raises(BadInput, match="does not exist; keep both where they were"):
        verify_comparison(path)
    write_json(path, {"cells": []})
    with pytest.raises(BadInput, match="is not what `panda compare` writes"):
        verify_comparison(path)


def test_a_run_gives_all_its_models_or_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "one")
    again = shutil.copytree(run, tmp_path / "runs" / "two")
    assert [s.name for s in read_models([str(run)])[0]] == ["base", "tuned"]
    for one in (f"{run}:tuned", str(run / "models" / "tuned")):
        sources, (model,) = read_models([one])
        assert [(s.folder, s.model, s.name) for s in sources] == [(run, "tuned", "tuned")]
        assert {r["model"] for r in model.rows} == {"tuned"}
        assert model.whole == frozenset({"generation"})  # 12 questions was the limit for likelihood
        assert model.rules["likelihood"] == "normalize: bytes"
    both = read_models([str(run), f"{again}:tuned"])[0]
    assert [s.name for s in both] == ["base", "one:tuned", "two:tuned"]
    third = shutil.copytree(run, tmp_path / "one")
    names = [s.name for s in read_models([f"{run}:tuned", f"{third}:tuned"])[0]]
    assert names == ["one:tuned", "one:tuned#2"]
    with pytest.raises(BadInput, match="has no rows of model 'tunde'; it has base, tuned"):
        read_models([f"{run}:tunde"])
    with pytest.raises(BadInput, match="model 'base' is named twice"):
        read_models([str(run), f"{run}:base"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{not json", "rows.jsonl:2: not valid JSON"),
        ("[]", "rows.jsonl:2: the row is no object"),
        ('{"model": "m", "task": "t"}', "rows.jsonl:2: the row has no field 'prompt'"),
        (None, "rows.jsonl:2: question 'q0' says correct=False against its own choice"),
    ],
)
def test_broken_rows_are_named_by_line(line: str | None, sentence: str, tmp_path: Path) -> None:
    (folder,) = write_models(tmp_path, 4, ("base",))
    first = json.dumps(next(iter(read_jsonl(folder / "rows.jsonl"))))
    second = line if line is not None else json.dumps({**json.loads(first), "correct": False})
    write_text(folder / "rows.jsonl", f"{first}\n{second}\n")
    with pytest.raises(BadInput) as e:
        read_models([str(folder)])
    assert sentence in str(e.value)


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    out = capsys.readouterr()
    return int(e.value.code or 0), out.out, out.err


def test_the_command_prints_writes_and_answers_in_json(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = panda(capsys, "compare", *(str(made / f"eval-{m}") for m in ("base", "tuned", "other")))
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100
    assert "tuned  base       +40.0" in out
    assert "no difference found" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["compare.html", "comparison.json"]
    code, out, _ = panda(
        capsys,
        "compare",
        str(made / "eval-base"),
        str(made / "eval-tuned"),
        "--json",
        "--margin",
        "5",
        "--out",
        "sub/c.html",
    )
    answer = json.loads(out)
    assert code == 0
    assert answer["margin"] == 0.05
    assert answer.pop("page") == "sub/c.html"
    assert answer == read_json(tmp_path / "sub" / "comparison.json")
    code, out, _ = panda(capsys, "verify", "sub")
    assert code == 0
    assert re.search(r"sub: \d+ numbers rebuilt from 240 rows, all equal", out)
    code, out, _ = panda(capsys, "verify", "sub/comparison.json", "--json")
    assert json.loads(out)["numbers"] > 50
    stored = read_json(tmp_path / "sub" / "comparison.json")
    stored["cells"][0]["n"] += 1
    write_json(tmp_path / "sub" / "comparison.json", stored)
    code, _, err = panda(capsys, "verify", "sub")
    assert (code, "the rows give 40" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "nothing"], "nowhere does not exist; give a folder of `panda eval --out`"),
        (["."], ". has no rows.jsonl"),
        (["{base}"], "One model is no comparison"),
        (["{base}", "{tuned}", "--margin", "0"], "--margin: 0 is not between 0 and 100"),
        (
            ["{base}", "{tuned}", "--baseline", "tunde"],
            "--baseline 'tunde' is none of the models. Did you mean 'tuned'?",
        ),
        (["{base}", "{tuned}", "--tasks", "c3-m"], "--tasks: no rows of task 'c3-m'"),
        (["{base}", "{tuned}", "--out", "."], "is a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments: list[str],
    sentence: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = panda(
        capsys, "compare", *(a.format(base=made / "eval-base", tuned=made / "eval-tuned") for a in arguments)
    )
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_common_tells_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_models(tmp_path, 20, ("base", "tuned"))
    write_jsonl(b / "rows.jsonl", [r for r in read_jsonl(b / "rows.jsonl") if r["id"] != "q7"])
    monkeypatch.chdir(tmp_path)
    code, _, err = panda(capsys, "compare", str(a), str(b))
    assert (code, "compare them on the 19 that all have with --common" in err) == (2, True)
    code, out, _ = panda(capsys, "compare", str(a), str(b), "--common")
    assert code == 0
    assert "19 questions in 10 passages" in out
    assert "different questions (1 only by base, 0 only by tuned)" in out.replace("\n", " ")
    assert verify_comparison(tmp_path)["numbers"] > 50


def test_published_counts_are_printed_or_their_absence_explained(tmp_path: Path) -> None:
    questions = [{**question(i, "c3-d", per_passage=1), "group": "test"} for i in range(1890)]
    task = {"name": "c3-d", "reader": "c3", "prompts": {"paper": {"template": "{question}", "generate": True}}}
    rows = rows_of("ours", questions, lambda i, _: i % 2 == 0, ("paper",), "generation")
    folder = write_folder(tmp_path / "ours", rows, questions, [task])
    comparison, page = compare_folders([str(folder)], CompareSpec(published=True), tmp_path / "c.html")
    text = io.StringIO()
    print_comparison(comparison, page, Console(file=text, width=100))
    assert re.search(
        r"ours\s+50\.0\s+BELLE-LLaMA-Ext-7B\s+29\.5\s+\+20\.5\s+\+17\.\d to \+23\.\d\s+<\.001", text.getvalue()
    )
    html = page.read_text(encoding="utf-8")
    assert "Panda-Instruct-7B, 9k steps" in html
    assert 'id="question-data"' not in html
    assert verify_comparison(tmp_path)["numbers"] > 50

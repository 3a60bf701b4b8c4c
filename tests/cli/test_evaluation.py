# ruff: noqa: F811 (the imported fixture)
import json
from pathlib import Path

import pytest

from pandallm.cli import main
from pandallm.cli.evaluation import _devices
from pandallm.errors import BadInput
from pandallm.store import read_jsonl, write_jsonl
from tests.evaluate.conftest import model_folder  # noqa: F401 (a fixture)

TASK = (
    'name: lake\nreader: mcq\nfiles: lake.jsonl\nprompts: {text: {template: "{context}\\n问题：{question}\\n答案："}}\n'
)


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    rows = [
        {
            "id": i,
            "context": f"小明住在湖边{i}。",
            "question": f"他{i}？",
            "options": ["湖边", f"山{i}"],
            "answer": i % 2,
        }
        for i in range(6)
    ]
    write_jsonl(tmp_path / "lake.jsonl", rows)
    (tmp_path / "lake.yaml").write_text(TASK, encoding="utf-8")
    return str(tmp_path / "lake.yaml")


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def test_scores_prompts_and_flags_from_the_command_line(
    capsys: pytest.CaptureFixture[str],
    model_folder: Path,
    task_file: str,
    tmp_path: Path,
) -> None:
    common = [str(model_folder), "--tasks", task_file, "--device", "cpu", "--quiet"]
    code, out, err = panda(
        capsys, "eval", *common, "--limit-passages", "4", "--shots", "0,1", "--normalize", "bytes", "--json",
        "--batch-size", "8", "--confidence", "0.9", "--out", str(tmp_path / "scored"),
    )  # fmt: skip
    assert code == 0, err
    scores = json.loads(out)
    assert [(r["shots"], r["n"]) for r in scores["table"]] == [(0, 4), (1, 4)]
    assert scores["confidence"] == 0.9
    assert len(scores["shots_effect"]) == 1
    for row in read_jsonl(tmp_path / "scored" / "rows.jsonl"):
        assert row["choice"] == row["choices"]["bytes"]
    code, out, err = panda(capsys, "eval", *common)
    assert code == 0, err
    assert "lake" in out
    code, out, err = panda(capsys, "eval", *common, "--show-prompt", "2")
    assert code == 0, err
    assert "小明住在湖边1。\n问题：他1？\n答案：\n" in out
    assert "scored: '山1'" in out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--shots", "x"], "--shots x: give a number"),
        (["--normalize", "length"], "--normalize: Input should be 'sum'"),
        (["--batch-size", "0"], "--batch-size 0: give a number"),
        (["--chat", "on"], "has no chat template"),
        (["--backend", "server"], "--server http"),
        (["--backend", "other"], "--backend 'other' is unknown"),
        (["--prompts", "txt"], "did you mean 'text'"),
        (["--shots", "6"], "use fewer shots"),
        (["--show-prompt", "7"], "has questions 1 to 6"),
    ],
)
def test_bad_flags_are_one_sentence(
    flags: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    model_folder: Path,
    task_file: str,
    tmp_path: Path,
) -> None:
    arguments = [str(model_folder), "--tasks", task_file, "--device", "cpu", "--quiet", "--out", str(tmp_path / "o")]
    code, out, err = panda(capsys, "eval", *arguments, *flags)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_devices_are_named_or_counted() -> None:
    assert _devices("cpu", 2) == ("cpu", "cpu")
    assert _devices("cuda:0,cuda:1", None) == ("cuda:0", "cuda:1")
    assert _devices("auto", None) == ("auto",)
    with pytest.raises(BadInput, match="one of the two"):
        _devices("cuda:0,cuda:1", 2)

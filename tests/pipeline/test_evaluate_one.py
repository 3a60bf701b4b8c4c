# ruff: noqa: F811 (the imported fixture)
"""`panda eval` from the outside: a small model, a file of questions, a folder of results."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.evaluate_one import BackendOptions, batch_tokens, evaluate_folder, load_tasks, make_spec, plan
from pandallm.pipeline.show_prompt import prompt_texts
from pandallm.pipeline.verify import verify_run
from pandallm.progress import SILENT, Silent
from pandallm.store import read_json, read_jsonl, write_jsonl
from tests.evaluate.conftest import model_folder  # noqa: F401 (a fixture)

TASK = """
name: lake
reader: mcq
files: lake.jsonl
prompts:
  letter: {template: "{context}\\n问题：{question}\\n{options}\\n答案：", answer: letter, generate: true}
  text: {template: "{context}\\n问题：{question}\\n答案："}
"""


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    words = ["湖边", "山上", "城里", "海边"]
    rows = [
        {"id": i, "cluster": f"p{i // 2}", "context": f"小明{i // 2}住在湖边。", "question": f"他{i}？"}
        | {"options": [words[(i + k) % 4] for k in range(3)], "answer": i % 3}
        for i in range(24)
    ]
    write_jsonl(tmp_path / "lake.jsonl", rows)
    (tmp_path / "lake.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path / "lake.yaml"


def evaluate(folder: Path, task: Path, out: Path | None, progress: Any = SILENT, **settings: Any) -> dict[str, Any]:
    loaded = load_tasks([str(task)], [], progress, shots=True)
    spec = make_spec("model", loaded.tasks, settings)
    return evaluate_folder(
        str(folder), loaded, spec, out=out, options=BackendOptions(devices=("cpu",)), progress=progress
    )


def test_results_are_written_and_rebuilt(model_folder: Path, task_file: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out, told = tmp_path / "out", Told()
    settings: dict[str, Any] = {"methods": ("likelihood", "generation"), "orders": 2, "max_new_tokens": 4}
    scores = evaluate(model_folder, task_file, out, told, normalize="characters", **settings)
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluate.yaml", "questions.jsonl", "rows.jsonl", "rows.parquet", "scores.json", "tasks.json",
    ]  # fmt: skip
    assert not (tmp_path / "out.partial").exists()
    assert "smallest difference" in told.lines[0]
    rows = list(read_jsonl(out / "rows.jsonl"))
    assert len(rows) == 24 * 5
    table = pq.read_table(out / "rows.parquet").to_pylist()
    assert [
        {**r, "choices": {k: v for k, v in (r["choices"] or {}).items() if v is not None} or None} for r in table
    ] == rows
    assert read_json(out / "scores.json") == json.loads(json.dumps(scores))
    assert {r["prompts"] for r in scores["prompts"]} == {2}
    assert len(scores["orders"]) == 2
    assert verify_run(out)["rows"] == len(rows)
    with pytest.raises(BadInput, match="exists already"):
        evaluate(model_folder, task_file, out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"choice": 1, "correct": False}, "choice is 1"),
        ({"correct": None}, "against its own choice"),
        ({"scores": [-9.0, -1.0, -9.0]}, "but what is stored gives"),
        ({"choices": {"sum": 9, "characters": 0, "bytes": 0}}, "choices is"),
        ({"near_tie": True}, "near_tie is True"),
        ({"answer": 9, "correct": False}, "answer or options differ"),
        ({"prompt": "other"}, "is not in questions.jsonl and tasks.json"),
        ({"truncated": True}, "scores.json"),
    ],
)
def test_a_changed_row_is_found(
    change: dict[str, Any],
    sentence: str,
    model_folder: Path,
    task_file: Path,
    tmp_path: Path,
) -> None:
    evaluate(model_folder, task_file, tmp_path / "out", prompts=("text",), limit={"likelihood": 4})
    rows = list(read_jsonl(tmp_path / "out" / "rows.jsonl"))
    changed = {**rows[0], "scores": [-1.0, -9.0, -9.0], "choice": 0, "near_tie": False}
    changed |= {"choices": {"sum": 0, "characters": 0, "bytes": 0}, "correct": rows[0]["answer"] == 0} | change
    if "correct" in change and change["correct"] is None:
        changed["correct"] = rows[0]["answer"] != 0
    write_jsonl(tmp_path / "out" / "rows.jsonl", [changed, *rows[1:]])
    with pytest.raises(PandaError, match=sentence.replace("(", r"\(")):
        verify_run(tmp_path / "out")


def test_a_killed_evaluation_goes_on(model_folder: Path, task_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys, os, signal\n"
        "from pandallm.evaluate.journal import Journal\n"
        "add = Journal.add\n"
        "def slowly(self, values):\n"
        "    add(self, values)\n"
        "    print('kept', flush=True)\n"
        "    sys.stdin.readline()\n"
        "Journal.add = slowly\n"
        "from pandallm.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = [
        "eval", str(model_folder), "--tasks", str(task_file), "--out", str(tmp_path / "out"), "--batch-size", "1",
        "--device", "cpu", "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        for _ in range(3):
            assert process.stdout.readline() == "kept\n"
            process.stdin.write("\n")
            process.stdin.flush()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "out.partial" / ".journal").is_dir()
    assert not (tmp_path / "out").exists()
    told = Told()
    evaluate(model_folder, task_file, tmp_path / "out", told, batch_tokens=1)
    assert any("questions were found done" in line for line in told.lines)
    evaluate(model_folder, task_file, tmp_path / "whole", batch_tokens=1)
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == (tmp_path / "whole" / "rows.jsonl").read_bytes()


def test_batch_sizes_are_tokens() -> None:
    assert batch_tokens("1", ["cpu"]) == 1
    assert batch_tokens("8", ["cpu"]) == 8192
    assert batch_tokens("auto", ["cpu"]) == 8192
    for wrong in ("0", "-1", "many"):
        with pytest.raises(BadInput, match="--batch-size"):
            batch_tokens(wrong, ["cpu"])


def test_options_are_checked_before_the_model_is_read(task_file: Path) -> None:
    loaded = load_tasks([str(task_file)], [], SILENT)
    with pytest.raises(BadInput, match="--chat"):
        make_spec("m", loaded.tasks, {"chat": "maybe"})
    with pytest.raises(BadInput, match="did you mean 'letter'"):
        make_spec("m", loaded.tasks, {"prompts": ("lettre",)})
    with pytest.raises(BadInput, match="given twice"):
        load_tasks([str(task_file)] * 2, [], SILENT)
    with pytest.raises(BadInput, match="2 times for 1 tasks"):
        load_tasks([str(task_file)], ["a", "b"], SILENT)
    assert plan(loaded, make_spec("m", loaded.tasks, {}))[0].startswith("lake: 24 questions, 12 passages")
    few = make_spec("m", loaded.tasks, {"limit": {"passages": 3}})
    assert plan(loaded, few)[0].startswith("lake: 6 questions, 3 passages")


def test_a_prompt_is_shown_as_it_is_scored(model_folder: Path, task_file: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    loaded = load_tasks([str(task_file)], [], SILENT, shots=True)
    letter, text = prompt_texts(model_folder, loaded, make_spec("m", loaded.tasks, {}), 3)
    assert letter["context"] == "小明1住在湖边。\n问题：他2？\nA: 城里\nB: 海边\nC: 湖边\n答案："
    assert bytes.fromhex(letter["utf8"]).decode() == letter["context"]
    assert letter["tokens"] == tokenizer.encode(letter["context"])
    assert text["continuations"] == ["城里", "海边", "湖边"]
    assert [tokenizer.decode(t) for t in text["continuation_tokens"]] == text["continuations"]
    with pytest.raises(BadInput, match="questions 1 to 24"):
        prompt_texts(model_folder, loaded, make_spec("m", loaded.tasks, {}), 25)

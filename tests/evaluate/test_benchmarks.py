"""Every built-in benchmark, from files in its published schema to scores: hand-written records and a Llama of two layers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pandallm.evaluate.run import evaluate_model
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.store import read_jsonl
from pandallm.tasks.open import open_examples, open_task
from tests.tasks.records import EXPECTED, FILES, write_records


@pytest.fixture(scope="module")
def long_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of these tests, with a window for the longest prompts (a token is about a byte)."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", sorted(FILES))
def test_records_are_scored_under_every_prompt(long_model: Path, tmp_path: Path, name: str) -> None:
    folder = write_records(name, tmp_path / "data")
    task, read = open_task(name, folder)
    examples = open_examples(name, folder)
    settings: dict[str, Any] = {"models": ["m"], "tasks": [name], "unconditional": True, "dtype": "float32"}
    shots = [0, 1] if examples else [0]
    spec = EvaluateSpec.model_validate({**settings, "shots": shots})
    given = {name: examples} if examples else None
    evaluate_model(long_model, "m", [(task, read.questions)], {}, spec, tmp_path / "out", device="cpu", examples=given)
    rows = list(read_jsonl(tmp_path / "out" / "rows.jsonl"))
    n = EXPECTED[name][0]
    assert len(rows) == n * len(task.prompts) * len(shots)
    by_id = {q.id: q for q in read.questions}
    for row in rows:
        question = by_id[row["id"]]
        assert len(row["scores"]) == len(question.options) == len(row["unconditional"] or row["scores"])
        assert all(score < 0 for score in row["scores"])
        assert row["answer"] == question.answer
        assert not row["truncated"]
    scores = summarize(rows, [], read.questions, [task], spec)
    whole = [r for r in scores["table"] if not r["group"]]
    assert len(whole) == len(task.prompts) * len(shots)
    assert all(r["n"] == n for r in whole)

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.errors import BadInput, Interrupted
from pandallm.evaluate.run import evaluate_model
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.store import read_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [
        {
            "id": f"d{i}",
            "source": "wiki",
            "language": "zh",
            "turns": [{"text": "小明住在湖边。" * (i + 1), "train": True}],
        }
        for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "held_out.parquet")
    return folder


def spec(**fields: object) -> EvaluateSpec:
    both = {"methods": ["likelihood", "generation"], "max_new_tokens": 6, "batch_tokens": 300, "models": ["m"]}
    return EvaluateSpec.model_validate({**both, **fields})


def test_rows_by_the_contract_and_the_same_twice(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    settings = spec(limit={"generation": 4}, bits_per_byte=["corpus"])
    for out in ("a", "b"):
        facts = evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, tmp_path / out)
    for name in ("rows.jsonl", "bits_per_byte.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = list(read_jsonl(tmp_path / "a" / "rows.jsonl"))
    assert facts["rows"] == len(rows) == 8 + 4 + 8
    assert facts["shared_prefixes"] is True
    asked = [("letter", "likelihood")] * 8 + [("text", "likelihood")] * 8 + [("letter", "generation")] * 4
    assert [(r["prompt"], r["method"]) for r in rows] == asked
    assert list(rows[0]) == [
        "model", "task", "prompt", "method", "shots", "chat", "order", "id", "cluster", "group", "options", "answer",
        "choice", "correct", "scores", "unconditional", "choices", "near_tie", "truncated", "completion", "choice_2023",
    ]  # fmt: skip
    for row in rows:
        assert row["correct"] == (row["choice"] == row["answer"])
        if row["method"] == "likelihood":
            assert row["choice"] == row["scores"].index(max(row["scores"]))
            assert len(row["scores"]) == row["options"]
        else:
            assert row["scores"] is None
            assert isinstance(row["completion"], str)
    bits = list(read_jsonl(tmp_path / "a" / "bits_per_byte.jsonl"))
    assert [b["id"] for b in bits] == ["d0", "d1", "d2"]
    assert [b["bytes"] for b in bits] == [21, 42, 63]
    assert all(b["bits"] > 0 for b in bits)


def test_interrupted_evaluation_goes_on_and_ends_with_the_same_bytes(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = spec(batch_tokens=1)
    evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, whole)
    stops = 0
    for _ in range(200):
        try:
            evaluate_model(
                model_folder,
                "m",
                [(task, questions)],
                {"corpus": held_out},
                settings,
                cut,
                deadline=time.monotonic() - 1,
            )
            break
        except Interrupted:
            stops += 1
            assert not (cut / "rows.jsonl").exists()
    assert stops > 5
    for name in ("rows.jsonl", "bits_per_byte.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_wrong_names_are_refused_before_the_model_is_read(
    task: TaskSpec, questions: list[Question], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="did you mean 'letter'"):
        evaluate_model(tmp_path / "no", "m", [(task, questions)], {}, spec(prompts=["lettre"]), tmp_path / "o")
    with pytest.raises(BadInput, match="corpus 'x'"):
        evaluate_model(tmp_path / "no", "m", [(task, questions)], {}, spec(bits_per_byte=["x"]), tmp_path / "o")


def test_scored_rows_summarize(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    settings = spec(headline={"tasks": ["lake"]}, models=["m"])
    evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, tmp_path / "o")
    rows, bits = (list(read_jsonl(tmp_path / "o" / f)) for f in ("rows.jsonl", "bits_per_byte.jsonl"))
    scores = summarize(rows, bits, questions, [task], settings)
    json.dumps(scores, allow_nan=False)
    likelihood = [r["correct"] for r in rows if r["method"] == "likelihood"]
    assert scores["headline"]["m"]["accuracy"] == pytest.approx(sum(likelihood) / len(likelihood), abs=1e-6)
    assert scores["bits_per_byte"][0]["bits_per_byte"] == pytest.approx(
        sum(b["bits"] for b in bits) / sum(b["bytes"] for b in bits), abs=1e-6
    )


def test_generation_may_use_other_prompts_than_likelihood(
    model_folder: Path, task: TaskSpec, questions: list[Question], tmp_path: Path
) -> None:
    settings = spec(prompts=["text"], generation_prompts=["letter"])
    evaluate_model(model_folder, "m", [(task, questions)], {}, settings, tmp_path)
    asked = {(r["prompt"], r["method"]) for r in read_jsonl(tmp_path / "rows.jsonl")}
    assert asked == {("text", "likelihood"), ("letter", "generation")}

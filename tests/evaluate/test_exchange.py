"""Tasks and results in lm-evaluation-harness's formats, without the harness (tests/parity holds the comparison with it)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pandallm.errors import BadInput
from pandallm.evaluate.exchange.hook import FILE, remove_hook, write_hook
from pandallm.evaluate.exchange.results import export_results
from pandallm.evaluate.exchange.tasks import export_task
from pandallm.evaluate.prompts import render
from pandallm.store import read_json, read_jsonl, write_json, write_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


def test_a_task_is_written_with_the_exact_prompt(task: TaskSpec, questions: list[Question], tmp_path: Path) -> None:
    path, left_out = export_task(task, "text", questions, tmp_path / "out", examples=questions[:2])
    assert path == tmp_path / "out" / "lake_text.yaml"
    assert left_out == ()
    config = yaml.safe_load(path.read_text())
    assert config["task"] == "lake_text"
    assert config["target_delimiter"] == " "
    assert [m["metric"] for m in config["metric_list"]] == ["acc", "acc_norm", "acc_bytes"]
    assert config["metadata"] == {"version": 1}
    assert config["fewshot_split"] == "train"
    documents = list(read_jsonl(Path(config["dataset_kwargs"]["data_files"]["test"])))
    assert len(list(read_jsonl(Path(config["dataset_kwargs"]["data_files"]["train"])))) == 2
    for document, question in zip(documents, questions, strict=True):
        context, continuations = render(task.prompts["text"], question)
        assert document["prompt"] == context
        assert [config["target_delimiter"] + c for c in document["choices"]] == continuations
        assert document["answer"] == question.answer
        assert document["id"] == question.id


def test_a_letter_prompt_has_no_scores_by_length(task: TaskSpec, questions: list[Question], tmp_path: Path) -> None:
    config = yaml.safe_load(export_task(task, "letter", questions, tmp_path).path.read_text())
    assert [m["metric"] for m in config["metric_list"]] == ["acc"]
    assert "fewshot_split" not in config


def test_questions_with_an_empty_option_are_left_out_and_named(
    task: TaskSpec, questions: list[Question], tmp_path: Path
) -> None:
    empty = Question("empty", "lake", "c", "", "哪里？", ("湖边", ""), 0)
    path, left_out = export_task(task, "text", [questions[0], empty], tmp_path)
    assert left_out == ("empty",)
    assert [d["id"] for d in read_jsonl(path.with_suffix(".jsonl"))] == [questions[0].id]
    with pytest.raises(BadInput, match="no questions to export"):
        export_task(task, "text", [empty], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_unknown_prompt_is_refused(task: TaskSpec, questions: list[Question], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no prompt 'leter'; it has letter, text"):
        export_task(task, "leter", questions, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def evaluation(folder: Path, task: TaskSpec, questions: list[Question], rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    write_json(folder / "tasks.json", [task.model_dump(mode="json")])
    write_jsonl(folder / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for q in questions])
    write_jsonl(folder / "rows.jsonl", rows)
    return folder


def row(question: Question, **fields: Any) -> dict[str, Any]:
    return {
        "model": "org/model",
        "task": "lake",
        "prompt": "text",
        "method": "likelihood",
        "id": question.id,
        "cluster": question.cluster,
        "group": question.group,
        "options": len(question.options),
        "answer": question.answer,
        "choice": 0,
        "correct": question.answer == 0,
        "scores": None,
        "completion": None,
        **fields,
    }


def test_results_are_written_with_their_names(task: TaskSpec, questions: list[Question], tmp_path: Path) -> None:
    # Options 湖边 (2 characters), 山上 (2), 海边的城里 (5): plain choice 0, per character choice 2, answer 0 and 1.
    first, second = questions[0], questions[3]
    rows = [row(q, scores=[-4.0, -5.0, -6.0]) for q in (first, second)]
    rows += [
        row(
            questions[1],
            method="generation",
            prompt="letter",
            shots=2,
            chat=True,
            completion="B。",
            choice=1,
            correct=True,
        ),
        row(
            questions[4],
            method="generation",
            prompt="letter",
            shots=2,
            chat=True,
            completion="不知道",
            choice=None,
            correct=False,
        ),
    ]
    written = export_results(evaluation(tmp_path / "scores", task, questions, rows), tmp_path / "out")
    assert all(p.parent == tmp_path / "out" / "org__model" for p in written)
    results = read_json(next(p for p in written if p.name.startswith("results_")))
    name = "lake_letter_generation_2shot_chat"
    assert set(results["results"]) == {"lake_text", name}
    figures = results["results"]["lake_text"]
    correct = [q.answer == 0 for q in (first, second)]
    assert figures["acc,none"] == sum(correct) / 2
    assert figures["acc_norm,none"] == sum(q.answer == 2 for q in (first, second)) / 2
    assert results["results"][name]["exact_match,none"] == 0.5
    assert results["results"][name]["exact_match_stderr,none"] == pytest.approx(0.5)  # sqrt(.5 / 1 / 2)
    assert results["n-shot"] == {"lake_text": 0, name: 2}
    assert results["n-samples"]["lake_text"] == {"original": 2, "effective": 2}
    assert results["versions"]["lake_text"] == 1
    samples = {p.name.split("_2026")[0]: p for p in written if p.name.startswith("samples_")}
    generated = list(read_jsonl(next(p for n, p in samples.items() if "generation" in n)))
    assert [s["filtered_resps"] for s in generated] == [["B"], ["[invalid]"]]
    assert generated[0]["resps"] == [["B。"]]
    assert generated[0]["arguments"] == {}  # examples and chat template are not kept, so neither is the prompt


def test_results_without_text(task: TaskSpec, questions: list[Question], tmp_path: Path) -> None:
    """A folder without questions.jsonl (`--no-text`) gives scores without documents."""
    folder = evaluation(tmp_path / "scores", task, questions, [row(questions[0], scores=[-1.0, -2.0, -3.0])])
    (folder / "questions.jsonl").unlink()
    written = export_results(folder, tmp_path / "out")
    sample = next(iter(read_jsonl(next(p for p in written if p.name.startswith("samples_")))))
    assert sample["doc"] == {"id": questions[0].id, "answer": questions[0].answer}
    assert "acc_norm" not in sample
    assert questions[0].context not in json.dumps(sample, ensure_ascii=False)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no evaluation"):
        export_results(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_hook_registers_our_model_at_start_up(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    assert write_hook(tmp_path) == tmp_path / FILE
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); "
        "from lm_eval.api.registry import get_model; get_model('dummy'); print(get_model('pandallm').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "PandaLM"
    assert remove_hook(tmp_path) == tmp_path / FILE
    assert not (tmp_path / FILE).exists()
    remove_hook(tmp_path)  # nothing there: nothing to do


def test_the_hook_loads_nothing_by_itself(tmp_path: Path) -> None:
    write_hook(tmp_path)
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); "
        "bad = {'torch', 'lm_eval', 'transformers', 'pydantic'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

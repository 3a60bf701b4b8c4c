"""A task of ours as a task of lm-evaluation-harness: a YAML file beside a file of its rendered questions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pandallm.errors import BadInput
from pandallm.evaluate.prompts import render
from pandallm.store import write_jsonl, write_text
from pandallm.tasks.spec import PromptSpec, TaskSpec
from pandallm.tasks.types import Question


class Exported(NamedTuple):
    """The YAML's path; ids of questions that the harness could not score."""

    path: Path
    left_out: tuple[str, ...]


def harness_name(task: str, prompt: str) -> str:
    """What a task under one prompt is called there, such as `c3-m_letter`."""
    return f"{task}_{prompt}"


def export_task(
    task: TaskSpec, prompt: str, questions: Sequence[Question], out: Path, examples: Sequence[Question] = ()
) -> Exported:
    """Write `out`/NAME.yaml and NAME.jsonl, NAME = `harness_name`.

    `lm_eval --include_path OUT --tasks NAME` then scores exactly this prompt. The YAML names the questions by absolute
    path (a relative one would depend on where lm_eval is started). `examples` become NAME.examples.jsonl, from which
    `--num_fewshot` takes its first ones. Questions with an empty option are left out: the harness cannot score them.
    Raises BadInput for an unknown prompt, for no question, and for one that the prompt cannot hold.
    """
    if prompt not in task.prompts:
        raise BadInput(f"Task {task.name} has no prompt {prompt!r}; it has {', '.join(task.prompts)}.")
    spec, name = task.prompts[prompt], harness_name(task.name, prompt)
    records = [document(spec, q) for q in questions]
    left_out = tuple(r["id"] for r in records if not all(r["choices"]))
    records = [r for r in records if all(r["choices"])]
    if not records:
        raise BadInput(f"Task {task.name} has no questions to export.")
    shots = [d for d in (document(spec, q) for q in examples) if all(d["choices"])]
    files = {"test": out / f"{name}.jsonl", **({"train": out / f"{name}.examples.jsonl"} if shots else {})}
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(path.absolute()) for split, path in files.items()}},
        "test_split": "test",
        **({"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}} if shots else {}),
        **harness_config(task, spec),
    }
    out.mkdir(parents=True, exist_ok=True)
    for path, lines in zip(files.values(), (records, shots)):
        write_jsonl(path, lines)
    target = out / f"{name}.yaml"
    write_text(target, yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120))
    return Exported(target, left_out)


def harness_config(task: TaskSpec, prompt: PromptSpec) -> dict[str, Any]:
    """The fields of its task configuration that do not depend on where the questions lie."""
    metrics = ["acc", "acc_norm", "acc_bytes"] if prompt.answer == "text" else ["acc"]
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": prompt.delimiter,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
        "metadata": {"version": task.version},
    }


def document(prompt: PromptSpec, question: Question) -> dict[str, Any]:
    """One question as the harness reads it: the rendered `prompt`, the `choices` (without delimiter), the `answer`."""
    context, continuations = render(prompt, question)
    return {
        "id": question.id,
        "cluster": question.cluster,
        "group": question.group,
        "prompt": context,
        "choices": [c[len(prompt.delimiter) :] for c in continuations],
        "answer": question.answer,
    }


def document_json(doc: dict[str, Any]) -> str:
    """The text whose hash the harness keeps as `doc_hash`."""
    return json.dumps(doc, indent=2, ensure_ascii=False)

"""A folder of `panda eval --out` -> what lm-evaluation-harness writes: its results file and its samples files."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.evaluate.exchange.tasks import document, document_json, harness_config, harness_name
from pandallm.store import read_json, read_jsonl, write_json, write_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import LETTERS, Question

Row = Mapping[str, Any]
#: The release whose files these were compared with.
FORM = "0.4.13"


def export_results(folder: Path, out: Path) -> list[Path]:
    """Write `out`/MODEL/results_DATE.json and samples_TASK_DATE.jsonl for every model in `folder`; returns the paths.

    One "task" there is a task under one prompt here; generated answers, examples, chat templates and turned option
    orders are named in the task's name. Accuracies are means without weights and the standard errors ignore passages,
    as theirs do: use `panda compare` for intervals. Raises BadInput where `folder` holds no evaluation.
    """
    if not (folder / "rows.jsonl").is_file() or not (folder / "tasks.json").is_file():
        raise BadInput(f"{folder} holds no evaluation: give a folder of `panda eval --out` or a run folder.")
    tasks = {t["name"]: TaskSpec.model_validate(t) for t in read_json(folder / "tasks.json")}
    questions = _questions(folder)
    by_model: dict[str, dict[str, list[Row]]] = {}
    for row in read_jsonl(folder / "rows.jsonl"):
        by_model.setdefault(row["model"], {}).setdefault(_name(row), []).append(row)
    if not by_model:
        raise BadInput(f"{folder}/rows.jsonl holds no rows; evaluate some questions first.")
    date = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    written = []
    for model, named in by_model.items():
        samples = {
            name: [
                _sample(tasks[row["task"]], questions.get((row["task"], row["id"])), i, row)
                for i, row in enumerate(rows)
            ]
            for name, rows in named.items()
        }
        place = out / model.replace("/", "__")
        place.mkdir(parents=True, exist_ok=True)
        results = _results(model, tasks, named, samples)
        write_json(place / f"results_{date}.json", results)
        written.append(place / f"results_{date}.json")
        for name, lines in samples.items():
            write_jsonl(place / f"samples_{name}_{date}.jsonl", lines)
            written.append(place / f"samples_{name}_{date}.jsonl")
    return written


def _questions(folder: Path) -> dict[tuple[str, str], Question]:
    path = folder / "questions.jsonl"
    if not path.is_file():
        return {}
    found = (Question(**{**q, "options": tuple(q["options"])}) for q in read_jsonl(path))
    return {(q.task, q.id): q for q in found}


def _name(row: Row) -> str:
    parts = [harness_name(row["task"], row["prompt"])]
    if row["method"] == "generation":
        parts.append("generation")
    if row.get("shots"):
        parts.append(f"{row['shots']}shot")
    if row.get("chat"):
        parts.append("chat")
    if row.get("order"):
        parts.append(f"order{row['order']}")
    return "_".join(parts)


def _sample(task: TaskSpec, question: Question | None, index: int, row: Row) -> dict[str, Any]:
    """One line of its samples file; `doc` and `arguments` hold no text where the folder has none."""
    prompt = task.prompts[row["prompt"]]
    doc: dict[str, Any] = document(prompt, question) if question else {"id": row["id"], "answer": row["answer"]}
    plain = question is not None and not (row.get("shots") or row.get("chat") or row.get("order"))
    context = doc["prompt"] if plain else ""
    scores = row.get("scores")
    if scores is not None:
        metrics = {"acc": float(row["correct"]), **_by_length(prompt.answer, doc, scores, row["answer"])}
        responses: list[Any] = [[[str(s), "unknown"]] for s in scores]  # rows do not say which were greedy
        filtered: list[Any] = [r[0] for r in responses]
        arguments = [(context, prompt.delimiter + c) for c in doc.get("choices", [])] if plain else []
    else:
        metrics = {"exact_match": float(row["correct"])}
        responses = [[row.get("completion") or ""]]
        filtered = [LETTERS[row["choice"]] if row["choice"] is not None else "[invalid]"]
        arguments = [(context, {"until": [], "do_sample": False})] if plain else []
    target = str(row["answer"])
    return {
        "doc_id": index,
        "doc": doc,
        "target": target,
        "arguments": {f"gen_args_{i}": {"arg_0": a, "arg_1": b} for i, (a, b) in enumerate(arguments)},
        "resps": responses,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(document_json(doc)),
        "prompt_hash": _hash(context),
        "target_hash": _hash(target),
        **metrics,
    }


def _by_length(answer: str, doc: Mapping[str, Any], scores: Sequence[float], gold: int) -> dict[str, float]:
    """acc_norm (characters) and acc_bytes of an option text question; nothing where its options are not known."""
    choices = doc.get("choices")
    if answer != "text" or not choices:
        return {}
    lengths = {"acc_norm": [len(c) for c in choices], "acc_bytes": [len(c.encode()) for c in choices]}
    return {
        name: float(max(range(len(scores)), key=lambda i: (scores[i] / of[i], -i)) == gold)
        for name, of in lengths.items()
    }


def _results(
    model: str,
    tasks: Mapping[str, TaskSpec],
    named: Mapping[str, Sequence[Row]],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    of = {name: tasks[rows[0]["task"]] for name, rows in named.items()}
    results, better = {}, {}
    for name, lines in samples.items():
        metrics = [m for m in lines[0]["metrics"] if all(m in line for line in lines)]
        figures: dict[str, Any] = {"name": name, "alias": name, "sample_len": len(lines)}
        for metric in metrics:
            values = [line[metric] for line in lines]
            figures[f"{metric},none"] = sum(values) / len(values)
            figures[f"{metric}_stderr,none"] = _standard_error(values)
        results[name], better[name] = figures, dict.fromkeys(metrics, True)
    return {
        "results": results,
        "group_subtasks": {},
        "configs": {
            name: {"task": name, **harness_config(of[name], of[name].prompts[rows[0]["prompt"]])}
            for name, rows in named.items()
        },
        "versions": {name: task.version for name, task in of.items()},
        "n-shot": {name: rows[0].get("shots", 0) for name, rows in named.items()},
        "higher_is_better": better,
        "n-samples": {name: {"original": len(rows), "effective": len(rows)} for name, rows in named.items()},
        "config": {"model": "pandallm", "model_args": {"pretrained": model}, "bootstrap_iters": 0, "limit": None},
        "pandallm_version": __version__,
        "form_of_lm_eval_version": FORM,
        "date": time.time(),
        "model_source": "pandallm",
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        "task_hashes": {
            name: _hash("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in lines))
            for name, lines in samples.items()
        },
    }


def _standard_error(values: Sequence[float]) -> float | str:
    """Sample standard deviation / sqrt(n), as the harness has it (no clusters); its text for a single value."""
    n, mean = len(values), sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else "N/A"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

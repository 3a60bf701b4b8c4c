"""Finished run folders whose scores follow from their rows, written by hand: what `panda report` sets side by side."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.store import write_json, write_jsonl, write_text
from pandallm.tasks.load import load_task
from pandallm.tasks.types import Question

MODELS = ("base", "instruct")
TASK = "microworld-facts"
SOURCES = {"wiki": "zh", "news": "zh", "books": "en"}


def write_finished_run(
    folder: Path,
    right: Callable[[int], bool],
    *,
    seed: int = 1,
    questions: int = 40,
    documents: int = 12,
    bits: float = 2.0,
    world: str = "",
    text: str = "",
    headline: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    steps: int = 6,
    scored: bool = True,
) -> Path:
    """A run of `base` (right on every fourth question) and `instruct` (right on question i where `right(i)`), under two prompts.

    `bits`: bits per byte of `instruct`, about; `base` has 1 more. `world` is put into every question and document name, so that two worlds share
    nothing; `text` into everything that data and models write. `headline`: of the recipe. `recipe`: more of its fields. Not `scored`: no question.
    """
    task = load_task(TASK)
    asked = [
        Question(
            f"q{i}", TASK, f"k{i // 2}", "", f"{world}第{i}问？{text}", ("甲", "乙", "丙", f"丁{text}"), i % 4, "facts"
        )
        for i in range(questions)
    ]
    spec = EvaluateSpec.model_validate(
        {
            "models": MODELS,
            "tasks": [TASK] if scored else [],
            "headline": (headline or {"tasks": [TASK], "prompts": ["listed", "alone"]}) if scored else None,
            "bits_per_byte": ["chinese"] if documents else [],
        }
    )
    rows = [
        _row(model, prompt, q, i % 4 == 0 if model == "base" else right(i))
        for model in MODELS
        for prompt in ("listed", "alone")
        for i, q in enumerate(asked)
        if scored
    ]
    bit_rows = [
        {"model": model, "corpus": "chinese", "source": source, "language": language, "id": f"{world}{source}-{i}"}
        | {"bits": round((bits + (model == "base")) * size * (1 + 0.1 * math.sin(i)), 4), "bytes": size, "tokens": 9}
        for model in MODELS
        for source, language in SOURCES.items()
        for i in range(documents)
        for size in [90 + 7 * i]
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "bits_per_byte.jsonl", bit_rows)
    write_jsonl(folder / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for q in asked])
    write_json(folder / "tasks.json", [task.model_dump(mode="json", exclude={"files"})] if scored else [])
    write_json(folder / "scores.json", summarize(rows, bit_rows, asked, [task] if scored else [], spec))
    write_text(folder / "recipe.yaml", yaml.safe_dump(_recipe(seed, spec, text) | (recipe or {}), allow_unicode=True))
    _training(folder, seed, steps, text)
    return folder


def _row(model: str, prompt: str, q: Question, right: bool) -> dict[str, Any]:
    choice = q.answer if right else (q.answer + 1) % 4
    scores = [1.0 if k == choice else -0.5 for k in range(4)]
    return {
        "model": model, "task": q.task, "prompt": prompt, "method": "likelihood", "shots": 0, "chat": False, "order": 0,
        "id": q.id, "cluster": q.cluster, "group": q.group, "options": 4, "answer": q.answer, "choice": choice, "correct": right,
        "scores": scores, "unconditional": None, "choices": {"sum": choice, "characters": choice, "bytes": choice},
        "near_tie": False, "truncated": False, "completion": None, "choice_2023": None,
    }  # fmt: skip


def _recipe(seed: int, spec: EvaluateSpec, text: str) -> dict[str, Any]:
    sources = {
        name: {"adapter": "text", "files": "${data}/" + name + ".jsonl", "language": language, "licence": text}
        for name, language in SOURCES.items()
    }
    return {
        "name": "kite",
        "description": f"A kite.{text}",
        "seed": seed,
        "base": {"model": "someone/kite-base"},
        "corpora": {"chinese": {"sources": sources, "held_out": {"documents": 12}}},
        "stages": {
            "instruct": {
                "from": "base", "corpus": "chinese", "sequence_length": 64, "batch_sequences": 2, "epochs": 2, "optimizer": {"lr": 0.001},
            }
        },
        "evaluate": spec.model_dump(mode="json"),
    }  # fmt: skip


def _training(folder: Path, seed: int, steps: int, text: str) -> None:
    facts = {"steps": steps, "trained_tokens": 90 * steps, "tokens": 100 * steps, "final_loss": 2.0}
    write_json(
        folder / "manifest.json",
        {
            "name": "kite", "seed": seed, "state": "complete", "pandallm": "0.1.0",
            "versions": {"python": "3.11.7", "note": text}, "machine": {"processor": f"An abacus{text}", "cores": 2},
            "peak_memory_gib": 0.5, "command": "panda run kite.yaml", "started": "2026-01-02T03:04:05Z", "seconds": 3.0,
            "work_seconds": 4000.0 + seed,
            "stages": [
                {"name": "train instruct", "kind": "train", "key": "bb", "seconds": 0.1, "made_in_seconds": 61.0, "facts": facts}
            ],
        },
    )  # fmt: skip
    lines = [
        {"step": k, "steps": steps, "loss": 3.0 / k, "tokens": 100, "trained_tokens": 90} for k in range(1, steps + 1)
    ]
    write_jsonl(folder / "metrics" / "instruct.jsonl", lines)
    watched = [{"step": k, "bits_per_byte": 2.0 + 1 / (k + 1)} for k in range(0, steps + 1, 2)]
    write_jsonl(folder / "held_out" / "instruct.jsonl", watched)
    total = {"unique": 300, "exposures": 100 * steps, "passes": 2.0, "trained": 90 * steps}
    write_json(folder / "ledgers" / "pack-instruct.json", {"ledger": {"sources": {}, "total": total}})

"""Extraction audit: the letter that a model generates against the letter that it finds most likely."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.stats.intervals import clustered_mean


def agreement(rows: Sequence[Mapping[str, Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """How often the letter read from generated text is the letter chosen by log-likelihood, on the same prompt.

    A low share where few answers are unparsed says that the two methods measure different things, or that extraction
    misreads; a high `unparsed` that the model does not answer in a form that the grammar knows. Rows are paired where
    model, task, prompt, shots, chat, order and question are equal and letters were scored (rows of option texts are left
    out). Per model, task, prompt, shots and chat, in order of first sight:
    {"model", "task", "prompt", "shots", "chat", "n", "agreement", "low", "high" (clustered interval), "unparsed" (share
    of generated answers that name no option; they do not agree), "parsed_agreement" (among the others; null without
    any), "likelihood_only", "generation_only" (shares of questions which only that method has right)}.
    """
    likely: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        if row["method"] == "likelihood" and row.get("choices") is None and row["choice"] is not None:
            likely[(*_cell(row), row.get("order", 0), row["id"])] = row
    cells: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for row in rows:
        if row["method"] == "generation":
            other = likely.get((*_cell(row), row.get("order", 0), row["id"]))
            if other is not None:
                cells.setdefault(_cell(row), []).append((other, row))
    out = []
    for (model, task, prompt, shots, chat), pairs in cells.items():
        same = [float(a["choice"] == b["choice"]) for a, b in pairs]
        parsed = [s for s, (_, b) in zip(same, pairs) if b["choice"] is not None]
        estimate = clustered_mean(same, [a["cluster"] for a, _ in pairs], confidence)
        n = len(pairs)
        out.append(
            {
                "model": model,
                "task": task,
                "prompt": prompt,
                "shots": shots,
                "chat": chat,
                "n": n,
                "agreement": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
                "unparsed": 1 - len(parsed) / n,
                "parsed_agreement": sum(parsed) / len(parsed) if parsed else None,
                "likelihood_only": sum(a["correct"] and not b["correct"] for a, b in pairs) / n,
                "generation_only": sum(b["correct"] and not a["correct"] for a, b in pairs) / n,
            }
        )
    return out


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["task"], row["prompt"], row.get("shots", 0), row.get("chat", False)

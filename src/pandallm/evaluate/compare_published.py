"""The 2023 paper's counts beside ours: two accuracies of which one is known as a count only."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.evaluate.compare_align import Aligned, Condition, Row, ScoredModel
from pandallm.evaluate.published import QUESTIONS, RIGHT
from pandallm.stats.intervals import as_json
from pandallm.stats.power import design_effect, intraclass_correlation
from pandallm.stats.unpaired import unpaired_difference

#: The prompt of the tasks that is the paper's, character for character.
PAPER_PROMPT = "paper"


def published_cells(models: Sequence[ScoredModel], aligned: Aligned, confidence: float) -> list[dict[str, Any]]:
    """Per cell: the paper's counts and the unpaired differences (ours - published), or `why_not`, a code with its facts.

    Shown where the questions are the paper's: its test set, all of it. One prompt is compared: the paper's where it was asked, otherwise the
    first. The variance is inflated by the design effect that our own rows show on that prompt; the paper's answers are taken to cluster alike.
    """
    cells: dict[tuple[Any, ...], list[Condition]] = {}
    for condition in aligned.rows:
        cells.setdefault(condition.cell, []).append(condition)
    out = []
    for conditions in cells.values():
        condition = next((c for c in conditions if c.prompt == PAPER_PROMPT), conditions[0])
        rows = aligned.rows[condition]
        entry: dict[str, Any] = {
            **{k: getattr(condition, k) for k in ("task", "group", "method", "shots", "chat", "prompt")},
            "title": next(
                (t.title for m in models for t in m.tasks if t.name == condition.task and t.title), condition.task
            ),
            "n": len(rows[0]),
            "published_n": QUESTIONS.get(condition.task),
            "why_not": _why_not(models, condition, len(rows[0])),
            "published": [],
            "differences": [],
        }
        if entry["why_not"] is None:
            effects = [measured_design_effect(r) for r in rows]
            for name, right in RIGHT.items():
                n = QUESTIONS[condition.task]
                entry["published"].append(
                    {
                        "model": name,
                        "right": right[condition.task],
                        "n": n,
                        "accuracy": as_json(right[condition.task] / n),
                    }
                )
                for model, ours, deff in zip(models, rows, effects):
                    count = sum(bool(r["correct"]) for r in ours.values())
                    c = unpaired_difference(right[condition.task], n, count, len(ours), deff, confidence)
                    entry["differences"].append(
                        {
                            "model": model.name,
                            "published": name,
                            "right": count,
                            "difference": as_json(c.difference.mean),
                            "low": as_json(c.difference.low),
                            "high": as_json(c.difference.high),
                            "p": as_json(c.p),
                            "design_effect": as_json(deff),
                        }
                    )
        out.append(entry)
    return out


def _why_not(models: Sequence[ScoredModel], condition: Condition, n: int) -> str | None:
    """`task`: the paper has no score; `n`: not as many questions; `split`: not known to be the test set."""
    if condition.task not in QUESTIONS:
        return "task"
    if n != QUESTIONS[condition.task]:
        return "n"
    splits = {t.split for m in models for t in m.tasks if t.name == condition.task}
    if condition.group == "test" or splits == {"test"}:
        return None
    # Files of C3 and LogiQA name no split inside. Where none is told and all of a file was scored: only the test set has this many questions.
    whole = all(condition.method in m.whole for m in models)
    if condition.group or splits != {""} or not whole:
        return "split"
    return None


def measured_design_effect(rows: Mapping[str, Row]) -> float:
    """By how much the clusters of these rows inflate the variance of their accuracy; at least 1."""
    clusters = [r["cluster"] for r in rows.values()]
    icc = intraclass_correlation([float(r["correct"]) for r in rows.values()], clusters)
    return 1.0 if math.isnan(icc) else max(1.0, design_effect(list(Counter(clusters).values()), icc))

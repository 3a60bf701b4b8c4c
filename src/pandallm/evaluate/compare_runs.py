"""Finished runs side by side, from their rows: headlines, score tables, bits per byte. The first run is what others are set against."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate import sections
from pandallm.evaluate.compare import compare_models, compare_pooled
from pandallm.evaluate.compare_align import Condition, Row, ScoredModel, align
from pandallm.evaluate.select import selected_prompts
from pandallm.evaluate.spec import CompareSpec, EvaluateSpec, SelectSpec
from pandallm.evaluate.summary import _select
from pandallm.stats.intervals import as_json, best_constant, chance, ratio_change, ratio_estimate

#: What a line of the score table is of.
TABLE_FIELDS = ("task", "group", "prompt", "method", "shots", "chat", "order")
BITS_FIELDS = ("corpus", "source", "language")


def headline_levels(model: ScoredModel, name: str, spec: EvaluateSpec) -> dict[str, Any] | None:
    """{"chance", "constant"}: what guessing and the best constant answer score on the questions of the headline of model `name`.

    None without a headline. Raises BadInput where the headline selects no rows.
    """
    if spec.headline is None:
        return None
    rows = sections.primary(sections.complete(model.rows), spec)
    chosen = _select(rows, spec.headline, name, {t.name: t for t in model.tasks}, "headline")
    first = [found[0] for found in chosen.values()]
    return {
        "chance": as_json(chance([r["options"] for r in first])),
        "constant": as_json(best_constant([r["answer"] for r in first])[1]),
    }


def compare_questions(
    models: Sequence[ScoredModel], headline: EvaluateSpec | None, spec: CompareSpec
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[dict[str, str]]]:
    """(the models' headlines compared, `compare_models` of what they share, [{"run", "why"}] of models that share no question with the first).

    `headline`: settings whose headline is that of every model; None where headlines differ. The headlines are one cell, a Holm family of
    their own; None where the models share none of its questions. Both are None where no model shares a question with the first.
    """
    apart = [{"run": m.name, "why": why} for m in models[1:] if (why := _apart(models[0], m, spec))]
    models = [m for m in models if m.name not in {entry["run"] for entry in apart}]
    if len(models) < 2:
        return None, None, apart
    try:
        comparison, aligned = compare_models(models, spec), align(models, spec.tasks, spec.common)
    except BadInput as e:  # each shares some with the first, but there is none that all share
        return None, None, [*apart, *({"run": m.name, "why": str(e)} for m in models[1:])]
    if headline is None or headline.headline is None:
        return None, comparison, apart
    select = headline.headline
    rows = {
        condition: picked
        for condition, found in aligned.rows.items()
        if _asked(condition, select, headline, models[0]) and (picked := _of_group(found, select.group))
    }
    return compare_pooled(models, rows, spec) if rows else None, comparison, apart


def _apart(first: ScoredModel, other: ScoredModel, spec: CompareSpec) -> str | None:
    """Why two models cannot be compared question by question; None where they can."""
    if silent := [m.name for m in (first, other) if not m.rows]:
        return f"{silent[0]} was asked no question."
    try:
        align([first, other], spec.tasks, spec.common)
    except BadInput as e:
        return str(e)
    return None


def _asked(condition: Condition, select: SelectSpec, spec: EvaluateSpec, model: ScoredModel) -> bool:
    task = next((t for t in model.tasks if t.name == condition.task), None)
    return (
        task is not None
        and condition.task in select.tasks
        and condition.method == select.method
        and condition.prompt in selected_prompts(task, select.prompts)
        and condition.shots == spec.shots[0]
        and condition.chat == (spec.chat == "on")
    )


def _of_group(found: Sequence[Mapping[str, Row]], group: str | None) -> list[dict[str, Row]]:
    """The rows of one group (all for None); empty where nothing is left. A row's own group: that of a condition may be the whole's."""
    picked = [{i: r for i, r in by_id.items() if group is None or r.get("group") == group} for by_id in found]
    return picked if picked[0] else []


def side_by_side(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Lines of several score tables (`scores.json`, one model each) by what they are of; `scores` has one entry per table, None where it lacks the line."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for k, table in enumerate(tables):
        for row in table:
            row = {**sections.DEFAULTS, **row}
            line = found.setdefault(
                tuple(row[f] for f in TABLE_FIELDS),
                {
                    "title": row.get("title") or row["task"],
                    **{f: row[f] for f in TABLE_FIELDS},
                    "scores": [None] * len(tables),
                },
            )
            names = ("accuracy", "low", "high", "n", "clusters", "chance", "constant", "unparsed")
            line["scores"][k] = {name: row.get(name) for name in names}
    tasks = list(dict.fromkeys((task, group) for task, group, *_ in found))
    return [line for task in tasks for key, line in found.items() if key[:2] == task]


def compare_bits(runs: Sequence[Sequence[Row]], confidence: float) -> list[dict[str, Any]]:
    """Bits per byte of several runs (the rows of one model each), per source and per language as a whole (corpus and source "all").

    [{"corpus", "source", "language", "scores": [{"bits_per_byte", "low", "high", "documents", "bytes"} or None],
    "changes": [None, then per run {"change", "low", "high", "documents"} or None]}]: a run's numbers are of all its documents, its change
    (relative, run / first run - 1) of the documents that both scored; they are paired by corpus, source, id and length.
    """
    cells: dict[tuple[str, ...], list[list[Row]]] = {}
    for k, rows in enumerate(runs):
        for r in rows:
            key = tuple(str(r[f]) for f in BITS_FIELDS)
            for cell in (key, ("all", "all", key[-1])):
                cells.setdefault(cell, [[] for _ in runs])[k].append(r)
    languages = list(dict.fromkeys(key[-1] for key in cells))
    ordered = sorted(cells, key=lambda key: (languages.index(key[-1]), key[0] == "all", key))
    return [
        {
            **dict(zip(BITS_FIELDS, key)),
            "scores": [_bits(found, confidence) for found in cells[key]],
            "changes": [None, *(_change(cells[key][0], found, confidence) for found in cells[key][1:])],
        }
        for key in ordered
    ]


def _bits(rows: Sequence[Row], confidence: float) -> dict[str, Any] | None:
    if not rows:
        return None
    e = ratio_estimate([r["bits"] for r in rows], [r["bytes"] for r in rows], None, confidence)
    estimate = {"bits_per_byte": as_json(e.mean), "low": as_json(e.low), "high": as_json(e.high)}
    return {**estimate, "documents": e.n, "bytes": sum(r["bytes"] for r in rows)}


def _change(first: Sequence[Row], second: Sequence[Row], confidence: float) -> dict[str, Any] | None:
    a, b = (
        {(r["corpus"], r["source"], r["id"], r["bytes"]): r["bits"] for r in rows if r["bytes"]}
        for rows in (first, second)
    )
    shared = [key for key in a if key in b]
    if not shared or sum(a[key] for key in shared) <= 0:
        return None
    e = ratio_change([a[key] for key in shared], [b[key] for key in shared], None, confidence)
    return {"change": as_json(e.mean), "low": as_json(e.low), "high": as_json(e.high), "documents": len(shared)}

"""Parts of scores.json about how questions are asked: normalisation, prompts, chat template, examples, order, letters.

All functions take rows with every field of the contract (`complete`), and give rows whose numbers are rounded.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pandallm.evaluate.spec import EvaluateSpec
from pandallm.stats.intervals import as_json, clustered_mean
from pandallm.stats.paired import paired_difference
from pandallm.stats.prompts import prompt_effect
from pandallm.tasks.spec import TaskSpec

Row = Mapping[str, Any]

#: What rows of earlier versions lack.
DEFAULTS: Mapping[str, Any] = {
    "shots": 0,
    "chat": False,
    "order": 0,
    "unconditional": None,
    "choices": None,
    "near_tie": None,
    "truncated": False,
}


def complete(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows with the fields that earlier versions did not write (`choice_2023` stays absent there: it was not read)."""
    return [{**DEFAULTS, **r} for r in rows]


def primary(rows: Sequence[Row], spec: EvaluateSpec) -> list[Row]:
    """Rows that make headline and differences: options as published, the first number of shots, the chat template only
    where nothing else is scored."""
    return [
        r for r in rows if r["order"] == 0 and r["shots"] == spec.shots[0] and bool(r["chat"]) == (spec.chat == "on")
    ]


def _cells(rows: Iterable[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for r in rows:
        cells[tuple(r[f] for f in fields)].append(r)
    return dict(cells)


def _share(cell: Sequence[Row], choice: Callable[[Row], int | None]) -> Any:
    return as_json(sum(choice(r) == r["answer"] for r in cell) / len(cell))


def normalizations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracy of each way to compare option texts, on the same scores; options as published."""
    scored = [r for r in rows if r["choices"] is not None and r["order"] == 0]
    out = []
    fields = ("model", "task", "group", "prompt", "shots", "chat")
    for key, cell in _cells(scored, *fields).items():
        row = {**dict(zip(fields, key)), "n": len(cell)}
        for way in ("sum", "characters", "bytes", "unconditional"):
            there = all(way in r["choices"] for r in cell)
            row[way] = _share(cell, lambda r, way=way: r["choices"][way]) if there else None  # type: ignore[misc]
        out.append(row)
    return out


def prompts(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    """Mean over prompts with the sampling error of the questions and the spread of the prompts, where there are two."""
    out = []
    fields = ("model", "task", "group", "method", "shots", "chat")
    for key, cell in _cells((r for r in rows if r["order"] == 0), *fields).items():
        by_prompt = {p: {r["id"]: r for r in of} for (p,), of in _cells(cell, "prompt").items()}
        if len(by_prompt) < 2:
            continue
        ids = sorted(set.intersection(*(set(of) for of in by_prompt.values())))
        if not ids:
            continue
        values = [[float(of[i]["correct"]) for i in ids] for of in by_prompt.values()]
        first = next(iter(by_prompt.values()))
        e = prompt_effect(values, [first[i]["cluster"] for i in ids], spec.confidence)
        out.append(
            {
                **dict(zip(fields, key)),
                "prompts": e.prompts,
                "accuracy": as_json(e.mean),
                "low": as_json(e.low),
                "high": as_json(e.high),
                "se_sampling": as_json(e.se_sampling),
                "spread": as_json(e.spread),
                "min": as_json(e.minimum),
                "max": as_json(e.maximum),
            }
        )
    return out


def chat_effect(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    """Chat template on minus off, on the same questions, prompts and examples."""
    return [
        {**dict(zip(("model", "task", "group", "method"), key)), **_effect(cell, "chat", False, True, spec)}
        for key, cell in _cells((r for r in rows if r["order"] == 0), "model", "task", "group", "method").items()
        if {bool(r["chat"]) for r in cell} == {False, True}
    ]


def shots_effect(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    """More examples (`to`) minus fewer (`from`), on the same questions and prompts, with and without chat alike."""
    out = []
    fields = ("model", "task", "group", "method")
    for key, cell in _cells((r for r in rows if r["order"] == 0), *fields).items():
        for a, b in pairwise(sorted({r["shots"] for r in cell})):
            out.append({**dict(zip(fields, key)), "from": a, "to": b, **_effect(cell, "shots", a, b, spec)})
    return out


def _effect(cell: Sequence[Row], field: str, a: Any, b: Any, spec: EvaluateSpec) -> dict[str, Any]:
    """b - a of one field, per question the mean over what was asked both ways."""
    others = [f for f in ("id", "prompt", "shots", "chat") if f != field]
    both: dict[tuple[Any, ...], dict[Any, Row]] = defaultdict(dict)
    for r in cell:
        if r[field] in (a, b):
            both[tuple(r[f] for f in others)][r[field]] = r
    pairs: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for found in both.values():
        if len(found) == 2:
            pairs[found[a]["id"]].append((found[a], found[b]))
    if not pairs:
        return {"difference": None, "low": None, "high": None, "p": None}
    ids = sorted(pairs)
    x, y = ([sum(bool(p[k]["correct"]) for p in pairs[i]) / len(pairs[i]) for i in ids] for k in (0, 1))
    c = paired_difference(x, y, [pairs[i][0][0]["cluster"] for i in ids], spec.confidence)
    return {
        "difference": as_json(c.difference.mean),
        "low": as_json(c.difference.low),
        "high": as_json(c.difference.high),
        "p": as_json(c.p),
    }


def orders(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    """What rotating the options changes. `consistent`: share of questions with the same option chosen in every order;
    `by_position`: how often the option shown at A, B, .. is chosen, over all orders (unparsed answers left out)."""
    out = []
    fields = ("model", "task", "group", "prompt", "method", "shots", "chat")
    for key, cell in _cells(rows, *fields).items():
        if not any(r["order"] for r in cell):
            continue
        by_id = {i: of for (i,), of in _cells(cell, "id").items()}
        ids = sorted(by_id)
        values = [sum(bool(r["correct"]) for r in by_id[i]) / len(by_id[i]) for i in ids]
        e = clustered_mean(values, [by_id[i][0]["cluster"] for i in ids], spec.confidence)
        same = sum(len({r["choice"] for r in by_id[i]}) == 1 and by_id[i][0]["choice"] is not None for i in ids)
        out.append(
            {
                **dict(zip(fields, key)),
                "orders": len({r["order"] for r in cell}),
                "accuracy": as_json(e.mean),
                "low": as_json(e.low),
                "high": as_json(e.high),
                "consistent": as_json(same / len(ids)),
                "by_position": _positions(cell, "choice"),
            }
        )
    return out


def letters(rows: Sequence[Row], tasks: Mapping[str, TaskSpec]) -> list[dict[str, Any]]:
    """How often each letter is chosen, beside how often it is right: for prompts that ask for a letter."""
    out = []
    fields = ("model", "task", "group", "prompt", "method", "shots", "chat")
    for key, cell in _cells((r for r in rows if r["order"] == 0), *fields).items():
        task = tasks.get(key[1])
        prompt = task.prompts.get(key[3]) if task else None
        if key[4] == "generation" or (prompt is not None and prompt.answer == "letter"):
            chosen, right = _positions(cell, "choice"), _positions(cell, "answer")
            out.append({**dict(zip(fields, key)), "chosen": chosen, "answers": right})
    return out


def _positions(cell: Sequence[Row], field: str) -> list[Any]:
    """Share of each shown position among those rows where there is one."""
    shown = [(r[field] - r["order"]) % r["options"] for r in cell if r[field] is not None]
    size = max(r["options"] for r in cell)
    return [as_json(shown.count(p) / len(shown)) if shown else None for p in range(size)]

"""Stored rows -> scores.json: every printed number, with its interval."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate import sections
from pandallm.evaluate.audit import agreement
from pandallm.evaluate.select import selected_prompts
from pandallm.evaluate.spec import EvaluateSpec, SelectSpec
from pandallm.evaluate.subjects import as_whole, with_whole
from pandallm.stats.intervals import (
    Estimate,
    as_json,
    best_constant,
    chance,
    clustered_mean,
    ratio_change,
    ratio_estimate,
)
from pandallm.stats.paired import holm, paired_difference
from pandallm.tasks.load import task_hash
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

Row = Mapping[str, Any]
Key = tuple[str, str]  # task, question id


def summarize(
    rows: Iterable[Row],
    bits_rows: Iterable[Row],
    questions: Sequence[Question],
    tasks: Sequence[TaskSpec],
    spec: EvaluateSpec,
) -> dict[str, Any]:
    """The content of scores.json (see docs/design.md), from the rows of all models of `spec.models`.

    Headline accuracy: per question the mean over the selected prompts, then the mean over questions, clustered by
    `cluster`. Controls are scored on the last model. Headline, controls and differences take options as published, the
    first number of shots, and the chat template only with `chat: on`. Differences are b - a of consecutive models on the same questions
    (headline, then each task and group, mean over prompts), with the sign-flip p; `p_holm` adjusts it over the
    headline's rows, and apart from these over the tasks' rows. Numbers that do not exist (an interval from one
    document) are null. Of a task with subjects every number is of the whole; the table lists the subjects too. Without
    `spec.headline` the headline is empty.
    Raises BadInput where a selection matches no rows, or where two models were scored on different questions.
    """
    rows, bits_rows = sections.complete(rows), list(bits_rows)
    main = sections.primary(rows, spec)
    by_name = {t.name: t for t in tasks}
    whole = as_whole(rows, by_name)
    known = {(q.task, q.id) for q in questions}
    strange = next((r for r in rows if (r["task"], r["id"]) not in known), None)
    if strange is not None:
        raise BadInput(f"rows.jsonl: question {strange['id']!r} of task {strange['task']} is not among the questions.")

    headline: dict[str, Any] = {}
    if spec.headline is not None:
        for model in spec.models:
            headline[model] = _score(_select(main, spec.headline, model, by_name, "headline"), spec.confidence)
        headline["controls"] = {
            name: _score(
                _select(main, control, spec.models[-1], by_name, f"controls.{name}"), spec.confidence, with_chance=True
            )
            for name, control in spec.controls.items()
        }
    return {
        "confidence": spec.confidence,
        "models": list(spec.models),
        "tasks": [{"task": t.name, "version": t.version, "split": t.split, "hash": task_hash(t)} for t in tasks],
        "headline": headline,
        "headline_definition": spec.headline.model_dump(mode="json") if spec.headline else None,
        "table": _table(with_whole(rows, by_name), by_name, spec),
        "differences": _differences(main, by_name, spec),
        "normalizations": sections.normalizations(whole),
        "prompts": sections.prompts(whole, spec),
        "chat_effect": sections.chat_effect(whole, spec),
        "shots_effect": sections.shots_effect(whole, spec),
        "orders": sections.orders(whole, spec),
        "letters": sections.letters(whole, by_name),
        "audit": [
            {k: as_json(v) if isinstance(v, float) else v for k, v in row.items()}
            for row in agreement(whole, spec.confidence)
        ],
        "bits_per_byte": _bits(bits_rows, spec),
        "bits_per_byte_changes": _bits_changes(bits_rows, spec),
    }


def _select(
    rows: Sequence[Row], select: SelectSpec, model: str, tasks: Mapping[str, TaskSpec], what: str
) -> dict[Key, list[Row]]:
    """The selected rows of one model, by question."""
    wanted: set[tuple[str, str]] = set()
    for name in select.tasks:
        if name not in tasks:
            raise BadInput(f"evaluate.{what}.tasks: {name!r} is none of the evaluated tasks: {', '.join(tasks)}.")
        wanted |= {(name, p) for p in selected_prompts(tasks[name], select.prompts)}
    found: dict[Key, list[Row]] = defaultdict(list)
    for r in rows:
        if (
            r["model"] == model
            and r["method"] == select.method
            and (r["task"], r["prompt"]) in wanted
            and (select.group is None or r["group"] == select.group)
        ):
            found[r["task"], r["id"]].append(r)
    if not found:
        group = f" of group {select.group!r}" if select.group is not None else ""
        raise BadInput(
            f"evaluate.{what}: model {model!r} has no {select.method} rows{group} for tasks {', '.join(select.tasks)}; "
            "name a task, prompt, method and group that are evaluated."
        )
    return dict(found)


def _accuracies(by_question: Mapping[Key, Sequence[Row]]) -> tuple[list[Key], list[float], list[str]]:
    """(questions, mean over their rows, clusters); clusters of different tasks are kept apart."""
    keys = sorted(by_question)
    values = [sum(bool(r["correct"]) for r in by_question[k]) / len(by_question[k]) for k in keys]
    return keys, values, [f"{k[0]}\0{by_question[k][0]['cluster']}" for k in keys]


def _interval(e: Estimate) -> dict[str, Any]:
    return {"low": as_json(e.low), "high": as_json(e.high)}


def _score(by_question: Mapping[Key, Sequence[Row]], confidence: float, with_chance: bool = False) -> dict[str, Any]:
    _, values, clusters = _accuracies(by_question)
    e = clustered_mean(values, clusters, confidence)
    score = {"accuracy": as_json(e.mean), **_interval(e), "n": e.n, "clusters": e.clusters}
    if with_chance:
        score["chance"] = as_json(chance([r[0]["options"] for r in by_question.values()]))
    return score


def _table(rows: Sequence[Row], tasks: Mapping[str, TaskSpec], spec: EvaluateSpec) -> list[dict[str, Any]]:
    cells: dict[tuple[str, str, str, str, str, int, bool, int], list[Row]] = defaultdict(list)
    for r in rows:
        how = r["shots"], bool(r["chat"]), r["order"]
        cells[r["model"], r["task"], r["group"], r["prompt"], r["method"], *how].append(r)
    model_order = {m: i for i, m in enumerate(spec.models)}
    task_order = {t: i for i, t in enumerate(tasks)}
    order = {key: i for i, key in enumerate(cells)}
    table = []
    for key in sorted(
        cells,
        key=lambda k: (
            task_order.get(k[1], len(tasks)),
            k[2],
            model_order.get(k[0], len(model_order)),
            k[4] == "generation",
            order[k],
        ),
    ):
        model, task, group, prompt, method, shots, chat, rotation = key
        cell = cells[key]
        e = clustered_mean([float(r["correct"]) for r in cell], [r["cluster"] for r in cell], spec.confidence)
        table.append(
            {
                "model": model,
                "task": task,
                "title": tasks[task].title if task in tasks else task,
                "group": group,
                "prompt": prompt,
                "method": method,
                "shots": shots,
                "chat": chat,
                "order": rotation,
                "n": e.n,
                "clusters": e.clusters,
                "accuracy": as_json(e.mean),
                **_interval(e),
                "chance": as_json(chance([r["options"] for r in cell])),
                "constant": as_json(best_constant([r["answer"] for r in cell])[1]),
                "unparsed": as_json(sum(r["choice"] is None for r in cell) / len(cell)),
                "near_ties": sum(bool(r["near_tie"]) for r in cell),
                "truncated": sum(bool(r["truncated"]) for r in cell),
                "accuracy_2023": _accuracy_2023(cell),
                "near_chance": tasks[task].near_chance if task in tasks else "",
            }
        )
    return table


def _accuracy_2023(cell: Sequence[Row]) -> Any:
    """Accuracy by the 2023 code's reading of completions; None where nothing was generated or that was not read."""
    if any(r["method"] != "generation" or "choice_2023" not in r for r in cell):
        return None
    return as_json(sum(r["choice_2023"] == r["answer"] for r in cell) / len(cell))


def _differences(rows: Sequence[Row], tasks: Mapping[str, TaskSpec], spec: EvaluateSpec) -> list[dict[str, Any]]:
    primary, others = [], []
    for a, b in pairwise(spec.models):
        if spec.headline is not None:
            first, second = (_select(rows, spec.headline, m, tasks, "headline") for m in (a, b))
            primary.append(_difference(a, b, "headline", first, second, spec))
    cells: dict[tuple[str, str, str], dict[str, dict[Key, list[Row]]]] = {}
    for r in as_whole(rows, tasks):
        cell = cells.setdefault((r["task"], r["group"], r["method"]), {})
        cell.setdefault(r["model"], {}).setdefault((r["task"], r["id"]), []).append(r)
    groups: dict[str, set[str]] = defaultdict(set)
    methods: dict[str, set[str]] = defaultdict(set)
    for task, group, method in cells:
        groups[task].add(group)
        methods[task].add(method)
    task_order = {t: i for i, t in enumerate(tasks)}
    for key in sorted(cells, key=lambda k: (task_order.get(k[0], 99), k[1], k[2] == "generation")):
        task, group, method = key
        what = task + (f"/{group}" if len(groups[task]) > 1 else "")
        what += " (generation)" if method == "generation" and len(methods[task]) > 1 else ""
        for a, b in pairwise(spec.models):
            if a in cells[key] and b in cells[key]:
                others.append(_difference(a, b, what, cells[key][a], cells[key][b], spec))
    for family in (primary, others):
        for row, adjusted in zip(family, holm([r["p"] for r in family])):
            row["p_holm"] = as_json(adjusted)
            row["p"] = as_json(row["p"])
    return primary + others


def _difference(
    a: str,
    b: str,
    what: str,
    first: Mapping[Key, Sequence[Row]],
    second: Mapping[Key, Sequence[Row]],
    spec: EvaluateSpec,
) -> dict[str, Any]:
    keys, x, clusters = _accuracies(first)
    other, y, _ = _accuracies(second)
    if keys != other:
        raise BadInput(f"{what}: {a!r} and {b!r} were scored on different questions; score both on the same.")
    c = paired_difference(x, y, clusters, spec.confidence)
    return {
        "a": a,
        "b": b,
        "what": what,
        "difference": as_json(c.difference.mean),
        **_interval(c.difference),
        "p": c.p,
        "n": c.difference.n,
        "clusters": c.difference.clusters,
    }


def _bits(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    cells: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for r in rows:
        cells[r["model"], r["corpus"], r["source"], r["language"]].append(r)
        cells[r["model"], "all", "all", r["language"]].append(r)  # a language as a whole, beside its sources
    model_order = {m: i for i, m in enumerate(spec.models)}
    out = []
    for key in sorted(cells, key=lambda k: (k[1:], model_order.get(k[0], 99))):
        cell = cells[key]
        e = ratio_estimate([r["bits"] for r in cell], [r["bytes"] for r in cell], None, spec.confidence)
        out.append(
            {
                **dict(zip(("model", "corpus", "source", "language"), key)),
                "documents": e.n,
                "bytes": sum(r["bytes"] for r in cell),
                "bits_per_byte": as_json(e.mean),
                "low": as_json(e.low),
                "high": as_json(e.high),
            }
        )
    return out


def _bits_changes(rows: Sequence[Row], spec: EvaluateSpec) -> list[dict[str, Any]]:
    bits: dict[str, dict[str, dict[Key, float]]] = defaultdict(lambda: defaultdict(dict))
    for r in rows:
        bits[r["language"]][r["model"]][r["corpus"], r["id"]] = r["bits"]
    out = []
    for language in sorted(bits):
        for a, b in pairwise(spec.models):
            first, second = bits[language].get(a), bits[language].get(b)
            if not first or not second:
                continue
            if first.keys() != second.keys():
                raise BadInput(f"bits_per_byte.jsonl: {a!r} and {b!r} were scored on different documents.")
            keys = sorted(first)
            e = ratio_change([first[k] for k in keys], [second[k] for k in keys], None, spec.confidence)
            out.append({"a": a, "b": b, "language": language, "change": as_json(e.mean), **_interval(e)})
    return out

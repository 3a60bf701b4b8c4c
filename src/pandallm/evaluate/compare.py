"""Rows of several models -> comparison.json: who is better, by how much, and what could not be told."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.compare_align import Aligned, Condition, Row, ScoredModel, align
from pandallm.evaluate.compare_published import published_cells
from pandallm.evaluate.spec import CompareSpec
from pandallm.spec import nearest
from pandallm.stats.equivalence import equivalence
from pandallm.stats.groups import tied_groups
from pandallm.stats.intervals import Estimate, as_json, best_constant, chance, clustered_mean
from pandallm.stats.paired import holm, mcnemar, minimum_detectable_difference, paired_difference

#: The probability with which "the smallest difference this could find" would be found.
POWER = 0.8
#: Sign flips for each comparison of the family: the smallest p, 1 / (1 + flips), stays below .01 after Holm's correction.
FLIPS_PER_COMPARISON = 100


def compare_models(models: Sequence[ScoredModel], spec: CompareSpec) -> dict[str, Any]:
    """The numbers of comparison.json (see docs/compare.md) from the rows of `models`, whose names must differ.

    Per task, group, method, number of shots and use of the chat template (a cell): accuracy per question is the mean over prompts, intervals
    are clustered, differences are b - a on the same questions. Holm's correction goes over all cells and pairs, for differences and for
    equivalence apart.
    Raises BadInput where the models may not be compared (see `align`), where there is one model only (unless `published`), or for an unknown
    baseline.
    """
    names = [m.name for m in models]
    if len(models) < 2 and not (spec.published and models):
        raise BadInput("One model is no comparison; name two folders, or one with --published.")
    if spec.baseline is not None and spec.baseline not in names:
        raise BadInput(f"--baseline {spec.baseline!r} is none of the models.{nearest(spec.baseline, names)}")
    aligned = align(models, spec.tasks, spec.common)
    titles = {t.name: t.title or t.name for m in models for t in m.tasks}
    pairs = _pairs(names, spec.baseline)
    by_cell: dict[tuple[Any, ...], list[Condition]] = defaultdict(list)
    for condition in aligned.rows:
        by_cell[condition.cell].append(condition)
    flips = max(10_000, FLIPS_PER_COMPARISON * len(pairs) * len(by_cell))
    cells = [_cell(c, aligned, names, pairs, titles, spec, flips) for c in by_cell.values()]
    _verdicts(cells, spec)
    for cell in cells:
        cell["groups"] = None if spec.baseline is not None else _groups(cell)
    return {
        "confidence": spec.confidence,
        "margin": spec.margin,
        "power": POWER,
        "baseline": spec.baseline,
        "models": names,
        "family": len(pairs) * len(cells),
        "left_out": aligned.left_out,
        "cells": cells,
        "published": published_cells(models, aligned, spec.confidence) if spec.published else None,
    }


def compare_pooled(
    models: Sequence[ScoredModel], rows: Mapping[Condition, Sequence[Mapping[str, Row]]], spec: CompareSpec
) -> dict[str, Any]:
    """One cell of all `rows` (conditions of `align`, of one method, number of shots and use of the chat template), whatever their
    tasks: every question counts alike, passages of different tasks stay apart. Holm's correction goes over this cell's pairs only.

    Raises ValueError for no rows.
    """
    pooled: dict[Condition, list[dict[str, Row]]] = {}
    for condition, found in rows.items():
        alike = condition._replace(task="", group="")
        for into, by_id in zip(pooled.setdefault(alike, [{} for _ in models]), found):
            for i, r in by_id.items():
                into[f"{condition.task}\0{i}"] = {**r, "cluster": f"{condition.task}\0{r['cluster']}"}
    if not pooled:
        raise ValueError("no rows")
    names = [m.name for m in models]
    pairs = _pairs(names, spec.baseline)
    flips = max(10_000, FLIPS_PER_COMPARISON * len(pairs))
    cell = _cell(list(pooled), Aligned(pooled, []), names, pairs, {}, spec, flips)
    _verdicts([cell], spec)
    return cell


def _pairs(names: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(names, 2))
    return [(baseline, n) for n in names if n != baseline]


def _cell(
    conditions: Sequence[Condition],
    aligned: Aligned,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    titles: Mapping[str, str],
    spec: CompareSpec,
    flips: int,
) -> dict[str, Any]:
    first = conditions[0]
    rows = {c: aligned.rows[c] for c in conditions}
    ids = list(dict.fromkeys(i for by_model in rows.values() for i in by_model[0]))
    asked: list[Row] = [next(m[0][i] for m in rows.values() if i in m[0]) for i in ids]
    clusters = [r["cluster"] for r in asked]
    values = {name: _means(ids, [by_model[k] for by_model in rows.values()]) for k, name in enumerate(names)}
    guessing = chance([r["options"] for r in asked])
    constant, constant_accuracy = best_constant([r["answer"] for r in asked])
    estimates = {name: clustered_mean(values[name], clusters, spec.confidence) for name in names}
    return {
        "task": first.task,
        "title": titles.get(first.task, first.task),
        "group": first.group,
        "method": first.method,
        "shots": first.shots,
        "chat": first.chat,
        "prompts": [c.prompt for c in conditions],
        "n": len(ids),
        "clusters": len(set(clusters)),
        "chance": as_json(guessing),
        "constant": {"answer": constant, "accuracy": as_json(constant_accuracy)},
        "scores": [
            {
                "model": name,
                **_estimate("accuracy", estimates[name]),
                "not_above": _not_above(estimates[name], guessing, constant_accuracy),
                **_counted([r for by_model in rows.values() for r in by_model[k].values()]),
            }
            for k, name in enumerate(names)
        ],
        "by_prompt": [
            {
                "prompt": c.prompt,
                "model": name,
                "n": len(rows[c][k]),
                **_estimate("accuracy", _accuracy(rows[c][k], spec.confidence)),
                **_counted(list(rows[c][k].values())),
            }
            for c in conditions
            for k, name in enumerate(names)
        ],
        "pairs": [
            _pair(
                a,
                b,
                ids,
                values,
                clusters,
                [(c.prompt, r[names.index(a)], r[names.index(b)]) for c, r in rows.items()],
                spec,
                flips,
            )
            for a, b in pairs
        ],
    }


def _not_above(e: Estimate, guessing: float, constant: float) -> str | None:
    """What a score is not shown to be better than: guessing, or (where it is) the best constant answer."""
    return "chance" if e.low <= guessing else "constant" if e.low <= constant else None


def _means(ids: Sequence[str], prompts: Sequence[Mapping[str, Row]]) -> list[float]:
    """Per question the share of the prompts under which it was answered right."""
    means = []
    for i in ids:
        right = [bool(p[i]["correct"]) for p in prompts if i in p]
        means.append(sum(right) / len(right))
    return means


def _accuracy(rows: Mapping[str, Row], confidence: float) -> Estimate:
    return clustered_mean(
        [float(r["correct"]) for r in rows.values()], [r["cluster"] for r in rows.values()], confidence
    )


def _counted(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "unparsed": as_json(sum(r["choice"] is None for r in rows) / len(rows)),
        "near_ties": sum(bool(r.get("near_tie")) for r in rows),
    }


def _estimate(name: str, e: Estimate) -> dict[str, Any]:
    return {name: as_json(e.mean), "low": as_json(e.low), "high": as_json(e.high)}


def _pair(
    a: str,
    b: str,
    ids: Sequence[str],
    values: Mapping[str, Sequence[float]],
    clusters: Sequence[str],
    prompts: Sequence[tuple[str, Mapping[str, Row], Mapping[str, Row]]],
    spec: CompareSpec,
    flips: int,
) -> dict[str, Any]:
    c = paired_difference(values[a], values[b], clusters, spec.confidence, resamples=flips)
    by_prompt = []
    for prompt, x, y in prompts:
        right_a, right_b = ([float(rows[i]["correct"]) for i in x] for rows in (x, y))
        d = paired_difference(right_a, right_b, [r["cluster"] for r in x.values()], spec.confidence)
        test = mcnemar(right_a, right_b)
        by_prompt.append(
            {
                "prompt": prompt,
                "n": len(x),
                **_estimate("difference", d.difference),
                "p": as_json(d.p),
                "mcnemar": {"only_a": test.only_a, "only_b": test.only_b, "p": as_json(test.p)},
            }
        )
    return {
        "a": a,
        "b": b,
        **_estimate("difference", c.difference),
        "p": as_json(c.p),
        "equivalence_p": as_json(equivalence(c.difference, spec.margin, 1 - spec.confidence).p),
        "detectable": as_json(_detectable(c.difference, spec.confidence)),
        "disagree": sum(any(i in x and x[i]["choice"] != y[i]["choice"] for _, x, y in prompts) for i in ids),
        "by_prompt": by_prompt,
    }


def _detectable(difference: Estimate, confidence: float) -> float:
    """The smallest true difference that these questions find with probability POWER; nan with one cluster.

    Two models that answered alike leave no spread to reckon with: then what their interval still admits.
    """
    if difference.se == 0:
        return max(abs(difference.low), abs(difference.high))
    return minimum_detectable_difference(difference.se, confidence, POWER)


def _verdicts(cells: Sequence[dict[str, Any]], spec: CompareSpec) -> None:
    """Holm over all pairs of all cells, then one of `better`, `worse`, `equivalent`, `undecided` (b against a) for each.

    A difference is established where its adjusted p is below 1 - confidence and its interval leaves out 0; both, because they come from
    different tests. `equivalent` is told beside it: a difference may be established and too small to matter.
    """
    family = [pair for cell in cells for pair in cell["pairs"]]
    alpha = 1 - spec.confidence
    adjusted = holm([p["p"] for p in family]), holm([p["equivalence_p"] for p in family])
    for pair, p, same in zip(family, *adjusted):
        pair["p_holm"], pair["equivalence_p_holm"] = as_json(p), as_json(same)
        pair["equivalent"] = same < alpha
        low, high = pair["low"], pair["high"]
        settled = p < alpha and low is not None and high is not None
        if settled and low > 0:
            pair["verdict"] = "better"
        elif settled and high < 0:
            pair["verdict"] = "worse"
        else:
            pair["verdict"] = "equivalent" if pair["equivalent"] else "undecided"
        pair["words"] = verdict_words(pair, spec.margin)


def verdict_words(pair: Mapping[str, Any], margin: float) -> str:
    """The verdict on b against a, as a person would say it."""
    within = f"within ±{100 * margin:g} points"
    if pair["verdict"] in ("better", "worse"):
        return pair["verdict"] + (f", {within}" if pair["equivalent"] else "")
    if pair["verdict"] == "equivalent":
        return f"equivalent {within}"
    if pair["detectable"] is None:
        return "no difference found (one passage says nothing of the spread)"
    return f"no difference found (smallest difference this could find: {100 * pair['detectable']:.1f} points)"


def _groups(cell: Mapping[str, Any]) -> list[list[str]]:
    """Best first; within a group no difference was established."""
    different = {frozenset((p["a"], p["b"])) for p in cell["pairs"] if p["verdict"] in ("better", "worse")}
    return tied_groups(
        [s["model"] for s in cell["scores"]],
        [s["accuracy"] for s in cell["scores"]],
        lambda a, b: frozenset((a, b)) in different,
    )

"""What a study measures: from its file, else the recipe's headline and bits per byte of each language."""

from collections.abc import Sequence
from typing import Any

from pandallm.errors import BadInput
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest
from pandallm.study.load import StudyFile
from pandallm.study.spec import AccuracyMetric, BitsMetric, Metric


def resolve_metrics(study: StudyFile, recipes: Sequence[Recipe]) -> dict[str, dict[str, Any]]:
    """Name -> settings of every metric. Raises BadInput where there is none, or where one names what no arm is asked."""
    for recipe in recipes:
        if recipe.evaluate is None:
            raise BadInput(
                f"{study.where('recipe')}: the recipe has no 'evaluate'; a study needs something to compare."
            )
    metrics = dict(study.spec.metrics) or _of(recipes[0])
    if not metrics:
        raise BadInput(
            f"{study.where('metrics')}: nothing is measured; add metrics, or a headline or bits_per_byte to the recipe's 'evaluate'."
        )
    for name, metric in metrics.items():
        _check(metric, study.where("metrics", name), recipes)
    return {name: metric.model_dump(mode="json") for name, metric in metrics.items()}


def _of(recipe: Recipe) -> dict[str, Metric]:
    e = recipe.evaluate
    assert e is not None
    metrics: dict[str, Metric] = {}
    if e.headline:
        metrics["headline"] = AccuracyMetric(
            kind="accuracy",
            tasks=e.headline.tasks,
            prompts=e.headline.prompts,
            group=e.headline.group,
            method=e.headline.method,
        )
    languages = dict.fromkeys(s.language for c in e.bits_per_byte for s in recipe.corpora[c].sources.values())
    return metrics | {f"bits-{lang}": BitsMetric(kind="bits_per_byte", language=lang) for lang in languages}


def _check(metric: Metric, where: str, recipes: Sequence[Recipe]) -> None:
    def known(field: str, what: str, name: str, names: list[str]) -> None:
        if name not in names:
            raise BadInput(f"{where}: {field}: no arm has {what} '{name}'.{nearest(name, sorted(set(names)))}")

    evaluations = [r.evaluate for r in recipes if r.evaluate]
    if metric.model != "last":
        known("model", "an evaluated model", metric.model, [m for e in evaluations for m in e.models])
    if isinstance(metric, AccuracyMetric):
        for task in metric.tasks:
            known("tasks", "an evaluated task", task, [t for e in evaluations for t in e.tasks])
        known("method", "the method", metric.method, [m for e in evaluations for m in e.methods])
        return
    corpora = [c for e in evaluations for c in e.bits_per_byte]
    if not corpora:
        raise BadInput(f"{where}: the recipe scores no held-out text; add evaluate.bits_per_byte.")
    if metric.corpus is not None:
        known("corpus", "in evaluate.bits_per_byte the corpus", metric.corpus, corpora)
    sources = [(n, s) for r in recipes for c in r.corpora if c in corpora for n, s in r.corpora[c].sources.items()]
    if metric.source is not None:
        known("source", "a scored source", metric.source, [n for n, _ in sources])
    if metric.language is not None:
        known("language", "held-out text in", metric.language, [s.language for _, s in sources])

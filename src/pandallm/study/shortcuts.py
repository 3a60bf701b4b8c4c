"""Factors with a name of their own, written as changes of the recipe's fields."""

from collections.abc import Callable, Mapping
from typing import Any

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest
from pandallm.study import spec as s
from pandallm.study.shares import set_shares, take_out, training_name, weights_of
from pandallm.study.staging import staging
from pandallm.train.spec import TrainSpec

#: (dotted field, value or REMOVE)
Change = tuple[str, Any]


def changes_of(factor: Any, level: str, recipe: Recipe, where: str) -> list[Change]:
    """What a level of a factor changes in a recipe. Raises BadInput, beginning with `where`, for names that the recipe lacks."""
    write: Callable[[Any, Any, Recipe, str], list[Change]] = _WRITERS[factor.kind]
    return write(factor, factor.levels[level], recipe, where)


def _field(factor: s.FieldFactor, value: Any, recipe: Recipe, where: str) -> list[Change]:
    fields = (factor.field,) if isinstance(factor.field, str) else factor.field
    return [(field, value) for field in fields]


def _set(factor: s.SetFactor, value: Mapping[str, Any], recipe: Recipe, where: str) -> list[Change]:
    return list(value.items())


def corpus_of(recipe: Recipe, name: str, where: str) -> CorpusSpec:
    """The corpus of this name, as it is trained on. Raises BadInput."""
    if name not in recipe.corpora:
        raise BadInput(f"{where}: corpus: the recipe has no corpus '{name}'.{nearest(name, sorted(recipe.corpora))}")
    return recipe.corpora[training_name(recipe, name)]


def _source(corpus: CorpusSpec, name: str, where: str) -> None:
    if name not in corpus.sources:
        raise BadInput(f"{where}: source: the corpus has no source '{name}'.{nearest(name, sorted(corpus.sources))}")


def stage_of(recipe: Recipe, name: str, where: str) -> tuple[TrainSpec, str]:
    """A training stage and the path of its settings."""
    if name == "base" and recipe.base.scratch:
        return recipe.base.scratch.train, "base.scratch.train"
    if name not in recipe.stages:
        known = sorted([*recipe.stages, *(["base"] if recipe.base.scratch else [])])
        raise BadInput(f"{where}: stage: the recipe has no stage '{name}'.{nearest(name, known)}")
    return recipe.stages[name], f"stages.{name}"


def _share(factor: s.ShareFactor, value: float, recipe: Recipe, where: str) -> list[Change]:
    corpus = corpus_of(recipe, factor.corpus, where)
    _source(corpus, factor.source, where)
    weights = weights_of(corpus, factor.weights, where, without=factor.source)
    return set_shares(
        recipe, training_name(recipe, factor.corpus), _split(weights, {factor.source: 1.0}, value), factor.max_epochs
    )


def _language_share(factor: s.LanguageShareFactor, value: float, recipe: Recipe, where: str) -> list[Change]:
    corpus = corpus_of(recipe, factor.corpus, where)
    weights = weights_of(corpus, factor.weights, where)
    inside = {n: w for n, w in weights.items() if corpus.sources[n].language == factor.language}
    if not inside or len(inside) == len(weights):
        what = "no source" if not inside else "every source"
        raise BadInput(
            f"{where}: language: {what} of corpus '{factor.corpus}' is in '{factor.language}'; there is no share to set."
        )
    outside = {n: w for n, w in weights.items() if n not in inside}
    return set_shares(recipe, training_name(recipe, factor.corpus), _split(outside, inside, value), factor.max_epochs)


def _split(rest: Mapping[str, float], part: Mapping[str, float], share: float) -> dict[str, float]:
    """Shares in which `part` has `share` of the whole and both keep their inner proportions."""
    shares = {n: (1 - share) * w / sum(rest.values()) for n, w in rest.items()} if rest else {}
    return shares | {n: share * w / sum(part.values()) for n, w in part.items()}


def _replay(factor: s.ReplayFactor, value: float, recipe: Recipe, where: str) -> list[Change]:
    stage, path = stage_of(recipe, factor.stage, where)
    name: str = stage.corpus  # type: ignore[attr-defined]
    corpus = corpus_of(recipe, name, where)
    _source(corpus, factor.source, where)
    weights = weights_of(corpus, factor.weights, where, without=factor.source)
    changes = set_shares(recipe, name, _split(weights, {factor.source: 1.0}, value), factor.max_epochs)
    if factor.equal == "total":
        return changes
    if stage.tokens is None and stage.steps is None:
        raise BadInput(
            f"{where}: equal: rest needs the budget of stage '{factor.stage}' in tokens or steps; set stages.{factor.stage}.tokens."
        )
    field, budget = ("tokens", stage.tokens) if stage.tokens is not None else ("steps", stage.steps)
    assert budget is not None
    return [*changes, (f"{path}.{field}", round(budget / (1 - value)))]


def _budget(factor: s.BudgetFactor, value: float, recipe: Recipe, where: str) -> list[Change]:
    _, path = stage_of(recipe, factor.stage, where)
    if factor.of != "epochs" and value != int(value):
        raise BadInput(f"{where}: {value:g} is not a whole number of {factor.of}.")
    return [(f"{path}.{factor.of}", value if factor.of == "epochs" else int(value))]


def _quantity(factor: s.QuantityFactor, value: int | None, recipe: Recipe, where: str) -> list[Change]:
    _source(corpus_of(recipe, factor.corpus, where), factor.source, where)
    return [(f"corpora.{training_name(recipe, factor.corpus)}.sources.{factor.source}.max_records", value)]


def _quality(factor: s.QualityFactor, value: float | None, recipe: Recipe, where: str) -> list[Change]:
    corpus = corpus_of(recipe, factor.corpus, where)
    if factor.source is not None:
        _source(corpus, factor.source, where)
    chosen = [factor.source] if factor.source is not None else list(corpus.sources)
    for name in chosen:
        source = corpus.sources[name]
        steps = corpus.clean if source.clean is None else source.clean
        if source.quality_field is None and not any(step.kind == "score" for step in steps):
            raise BadInput(
                f"{where}: nothing gives source '{name}' of corpus '{factor.corpus}' a quality; add a clean step {{kind: score}} or its quality_field."
            )
    trained = training_name(recipe, factor.corpus)
    return [(f"corpora.{trained}.sources.{name}.min_quality", value) for name in chosen]


def _noise(factor: s.NoiseFactor, value: float, recipe: Recipe, where: str) -> list[Change]:
    if recipe.world is None:
        raise BadInput(f"{where}: noise is put into the built-in world's instructions; this recipe has no 'world'.")
    return [("world.wrong_answers", value)]


def _vocabulary(factor: s.VocabularyFactor, value: int, recipe: Recipe, where: str) -> list[Change]:
    if recipe.base.scratch:
        return [("base.scratch.tokenizer.size", value)]
    return [("base.extend.size", value)] if value else [("base.extend", None)]


def _dedup(factor: s.DedupFactor, value: str, recipe: Recipe, where: str) -> list[Change]:
    corpus_of(recipe, factor.corpus, where)
    return [(f"corpora.{training_name(recipe, factor.corpus)}.dedup", {"kind": value})]


def _leave_out(factor: s.LeaveOutFactor, value: str | None, recipe: Recipe, where: str) -> list[Change]:
    corpus = corpus_of(recipe, factor.corpus, where)
    if value is None:
        return []
    _source(corpus, value, where)
    return take_out(recipe, training_name(recipe, factor.corpus), [value])[0]


_WRITERS: dict[str, Callable[..., list[Change]]] = {
    "field": _field,
    "set": _set,
    "share": _share,
    "language_share": _language_share,
    "replay": _replay,
    "budget": _budget,
    "quantity": _quantity,
    "quality": _quality,
    "noise": _noise,
    "vocabulary": _vocabulary,
    "dedup": _dedup,
    "leave_out": _leave_out,
    "staging": staging,
}

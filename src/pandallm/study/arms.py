"""A study's arms: the recipe, changed by one combination of levels each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pandallm.errors import BadInput
from pandallm.recipe.load import REMOVE, Draft
from pandallm.recipe.spec import Recipe
from pandallm.store import canonical_json, digest_json
from pandallm.study.effects import pairs_of
from pandallm.study.fields import check_field, is_entry
from pandallm.study.grid import Levels, combinations
from pandallm.study.load import StudyFile
from pandallm.study.shortcuts import changes_of, corpus_of, stage_of
from pandallm.study.spec import FractionalGrid, LeaveOutFactor, StudySpec


@dataclass(frozen=True)
class Arm:
    """One combination of levels and the recipe that it makes; `digest` is of what changes the result, the seed left out."""

    name: str
    levels: Levels
    recipe: Recipe
    digest: str

    def run(self, seed: int, study: str) -> Recipe:
        """The recipe of one seed; its run folder lies in the study's."""
        runtime = self.recipe.runtime.model_copy(update={"runs": f"{self.recipe.runtime.runs}/{study}/arms"})
        return self.recipe.model_copy(update={"name": self.name, "seed": seed, "runtime": runtime})


def make_arms(study: StudyFile, overrides: Sequence[str] = ()) -> list[Arm]:
    """The arms of a study in the order of its levels. `overrides` (a.b.c=value) change the recipe of every arm.

    Levels are applied factor after factor, in the order of the file. Raises BadInput where a factor names no field, where an arm is no
    valid recipe, and where two arms are the same.
    """
    base = study.recipe.copy()
    for field, value in study.spec.set.items():
        _change(base, field, value, study.where("set", field))
    for text in overrides:
        base.override(text)
    start = base.recipe()
    spec = complete(study, start)
    arms: list[Arm] = []
    for levels in combinations(spec, study.where("grid")):
        recipe = _recipe(study, spec, base, levels)
        arms.append(Arm(arm_name(levels), levels, recipe, result_digest(recipe)))
    seen: dict[str, Arm] = {}
    for arm in arms:
        other = seen.setdefault(arm.digest, arm)
        if other is not arm:
            factor = next(n for n in arm.levels if arm.levels[n] != other.levels[n])
            raise BadInput(
                f"{study.where('factors', factor)}: the levels make equal arms: '{other.name}' and '{arm.name}' are the same recipe; change or drop one level."
            )
    _check_contrasts(study, spec, arms)
    return arms


def _check_contrasts(study: StudyFile, spec: StudySpec, arms: Sequence[Arm]) -> None:
    """Refuse a claim that no two arms can decide: in a grid that leaves arms out, both sides may exist and differ in more than the claim."""
    if isinstance(spec.grid, FractionalGrid):
        return  # a fit to all arms estimates every level
    levels = {arm.name: arm.levels for arm in arms}
    for name, contrast in spec.contrasts.items():
        a, b = ({contrast.factor: s} if isinstance(s, str) else s for s in (contrast.a, contrast.b))
        a, b = ({str(f): str(level) for f, level in side.items()} for side in (a, b))
        if not pairs_of(levels, a, b):
            raise BadInput(
                f"{study.where('contrasts', name)}: no two arms of this grid have these levels and are otherwise equal; take grid: full, or compare others."
            )


def complete(study: StudyFile, recipe: Recipe) -> StudySpec:
    """The study with what it leaves to the recipe filled in: the levels of `leave_out` factors."""
    factors = dict(study.spec.factors)
    for name, factor in factors.items():
        if isinstance(factor, LeaveOutFactor):
            sources = corpus_of(recipe, factor.corpus, study.where("factors", name)).sources
            chosen = list(factor.levels) if factor.levels else list(sources)
            levels: dict[str, str | None] = {"all": None, **{n: n for n in chosen if n != "all"}}
            if len(levels) < 2 or len(sources) < 2:
                raise BadInput(
                    f"{study.where('factors', name)}: corpus '{factor.corpus}' has no source that can be left out."
                )
            factors[name] = factor.model_copy(update={"levels": levels})
    return study.spec.model_copy(update={"factors": factors})


def _recipe(study: StudyFile, spec: StudySpec, base: Draft, levels: Levels) -> Recipe:
    """The recipe of one combination of levels."""
    draft = base.copy()
    recipe = base.recipe()
    budgets: dict[str, str] = {}
    for stage, budget in spec.budget.items():
        where = study.where("budget", stage)
        _, path = stage_of(recipe, stage, where)
        for field, value in budget.given().items():
            # FLOPs become tokens when the arm's model is known; until then the stage must have some budget.
            _change(draft, f"{path}.{'tokens' if field == 'flops' else field}", 1 if field == "flops" else value, where)
        budgets[path] = stage
    recipe = draft.recipe()
    for name, level in levels.items():
        where = study.where("factors", name)
        told = f"{where}: level '{level}'"
        for field, value in changes_of(spec.factors[name], level, recipe, where):
            stage_path, _, last = field.rpartition(".")
            if last in ("tokens", "documents", "steps", "epochs") and stage_path in budgets:
                raise BadInput(f"{told}: {field} is fixed by budget.{budgets[stage_path]}; take one of them out.")
            _change(draft, field, value, told)
        recipe = draft.recipe()
    for stage, budget in spec.budget.items():
        if budget.flops is not None:
            where = study.where("budget", stage)
            _, path = stage_of(recipe, stage, where)
            _change(draft, f"{path}.tokens", _tokens(recipe, budget.flops, where), where)
            recipe = draft.recipe()
    return recipe


def _tokens(recipe: Recipe, flops: float, where: str) -> int:
    """Tokens that take so many FLOPs to train on. Raises BadInput where the model's shape is not known."""
    from pandallm.pipeline.plan.base import base_shape

    tokens = round(flops / base_shape(recipe.base, None).training_flops_per_token())
    if tokens < 1:
        raise BadInput(f"{where}: {flops:g} FLOPs do not train on a single token; raise flops.")
    return tokens


def _change(draft: Draft, field: str, value: object, told: str) -> None:
    path = check_field(draft.data, field, told)
    draft.change(path, REMOVE if value is None and is_entry(field) else value, told)


def arm_name(levels: Levels) -> str:
    """A name for folders: `factor-level`, several joined by `--`."""
    return "--".join(re.sub(r"[^A-Za-z0-9._-]", "-", f"{factor}-{level}") for factor, level in levels.items())


def result_digest(recipe: Recipe) -> str:
    """Digest of everything in a recipe that can change its results; the seed is left out."""
    settings = recipe.model_dump(mode="json", by_alias=True, exclude={"name", "description", "seed", "runtime"})
    return digest_json(canonical_json(settings))

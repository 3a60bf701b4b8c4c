"""The order in which two corpora are read: two stages, one, or the second in the decay phase of the first."""

from typing import Any

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.recipe.load import REMOVE
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest
from pandallm.study.shares import add_corpus, weights_of
from pandallm.study.spec import StagingFactor, UpSampled

Change = tuple[str, Any]


def staging(factor: StagingFactor, value: str | UpSampled, recipe: Recipe, where: str) -> list[Change]:
    """Changes of a recipe for one arrangement of two stages that follow each other. Raises BadInput."""
    for field in ("first", "second"):
        name = getattr(factor, field)
        if name not in recipe.stages:
            raise BadInput(f"{where}: {field}: the recipe has no stage '{name}'.{nearest(name, sorted(recipe.stages))}")
    first, second = recipe.stages[factor.first], recipe.stages[factor.second]
    if second.from_ != factor.first:
        raise BadInput(f"{where}: stage '{factor.second}' starts from '{second.from_}', not from '{factor.first}'.")
    others = [n for n, stage in recipe.stages.items() if stage.from_ == factor.first and n != factor.second]
    tokens, instructions = factor.tokens
    total = tokens + instructions
    paths = f"stages.{factor.first}", f"stages.{factor.second}"
    if value == "two_stage":
        return [(f"{paths[0]}.tokens", tokens), (f"{paths[1]}.tokens", instructions)]
    if others:
        raise BadInput(
            f"{where}: stage '{others[0]}' starts from '{factor.first}' too, which an arm of one stage does not have."
        )
    times = value.upsample if isinstance(value, UpSampled) else 1.0
    if value == "decay":
        length = round(factor.decay_share * total)
        if instructions >= length:
            raise BadInput(
                f"{where}: decay: {instructions:,} tokens of '{factor.second}' do not fit into a decay phase of {length:,}; raise decay_share."
            )
        share = instructions / length
    else:
        length = total
        share = times * instructions / total
        if share >= 1:
            raise BadInput(
                f"{where}: upsample {times:g} makes '{factor.second}' {share:.0%} of all tokens; at most {total / instructions:.3g} fits."
            )
    mixed = f"{first.corpus}_and_{second.corpus}"
    corpus = _mix(recipe.corpora[first.corpus], recipe.corpora[second.corpus], share, factor, where)
    # The settings are the first stage's: what is mixed into pretraining is trained as pretraining.
    stage = first.model_dump(mode="json", by_alias=True, exclude={"epochs", "documents", "tokens", "steps"})
    stage |= {"corpus": mixed, "tokens": length, "from": first.from_}
    if value == "decay":
        optimizer = stage["optimizer"] | {
            "schedule": "linear",
            "warmup": 0,
            "final_lr_share": 0.0,
            "schedule_steps": None,
        }
        stage |= {"from": factor.first, "optimizer": optimizer}
        start = [(f"{paths[0]}.tokens", total - length), (f"{paths[0]}.optimizer.schedule", "constant")]
    else:
        start = [(paths[0], REMOVE), *_forget(recipe, factor.first)]
    return [*add_corpus(recipe, mixed, corpus), *start, (paths[1], stage)]


def _forget(recipe: Recipe, stage: str) -> list[Change]:
    """What else names a stage that is taken out."""
    changes: list[Change] = []
    if recipe.evaluate and stage in recipe.evaluate.models:
        changes.append(("evaluate.models", [m for m in recipe.evaluate.models if m != stage]))
    if recipe.release and stage in (recipe.release.base, recipe.release.target):
        changes.append(("release", None))
    return changes


def _mix(first: CorpusSpec, second: CorpusSpec, share: float, factor: StagingFactor, where: str) -> dict[str, Any]:
    """Both corpora as one; `share` of its tokens is the second's. Each source keeps its own cleaning and held-out documents."""
    both = [name for name in second.sources if name in first.sources]
    if both:
        raise BadInput(f"{where}: source '{both[0]}' stands in both corpora; rename one.")
    weights = weights_of(first, factor.weights, where)
    own = {n: v.share or 1.0 for n, v in second.sources.items()}
    shares = {n: (1 - share) * w / sum(weights.values()) for n, w in weights.items()}
    shares |= {n: share * w / sum(own.values()) for n, w in own.items()}
    corpus = first.model_dump(mode="json", by_alias=True, exclude={"sources"})
    sources: dict[str, Any] = {}
    for part in (first, second):
        dumped = part.model_dump(mode="json", by_alias=True)
        for name, source in dumped["sources"].items():
            source["clean"] = source["clean"] if source["clean"] is not None else dumped["clean"]
            source["held_out"] = source["held_out"] or dumped["held_out"]
            sources[name] = source | {"share": round(shares[name], 6), "max_epochs": factor.max_epochs}
    return corpus | {"sources": sources}

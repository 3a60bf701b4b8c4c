"""Which chat template each model of a run has, and in which form it learnt dialogues: known before anything is trained."""

from collections.abc import Collection, Mapping
from pathlib import Path

from pandallm.data.chat import check_vocabulary
from pandallm.errors import BadInput
from pandallm.pipeline.corpora import stage_template
from pandallm.recipe.spec import Recipe
from pandallm.train.spec import TrainSpec

#: Training stages in order: name -> (settings, corpus, the stage it starts from), as `Run.plans` gives them.
Plans = Mapping[str, tuple[TrainSpec, str, str | None]]


def chain(plans: Plans, name: str) -> list[str]:
    """The training stages behind a model, the last one first; [] for a base that was not trained here."""
    found = list[str]()
    at: str | None = name
    while at is not None and at in plans:
        found.append(at)
        at = plans[at][2]
    return found


def template_of(plans: Plans, name: str, base: Path | None) -> str | None:
    """The chat template in a model's folder: its last stage's that has one, else `base` where the base brings one, else None.

    base: folder of the model before any training; None for one made here, which brings none.
    """
    from pandallm.model.folder import load_tokenizer

    stages = (plans[stage][0].chat_template for stage in chain(plans, name))
    own = next((template for template in stages if template != "none"), None)
    if own is None and base is not None and load_tokenizer(base).chat_template:
        return "base"
    return own


def check_chat_templates(recipe: Recipe, plans: Plans, base: Path | None) -> None:
    """Raise BadInput where a stage's template does not fit the base's tokenizer, or a model is to be asked in a chat and has no template."""
    scratch = recipe.base.scratch
    for spec, _, _ in plans.values():
        if base is not None:
            stage_template(spec, base)
        elif scratch and spec.chat_template != "none":
            check_vocabulary(spec.chat_template, scratch.tokenizer.special)
    if recipe.evaluate is None or recipe.evaluate.chat == "off":
        return
    for model in recipe.evaluate.models:
        if template_of(plans, model, base) is None:
            raise BadInput(
                f"evaluate.chat is {recipe.evaluate.chat}, but model {model} has no chat template: set chat_template in the stage "
                "that teaches it dialogues, score it with `chat: off`, or take it out of evaluate.models."
            )


def mismatches(recipe: Recipe, plans: Plans, base: Path | None, dialogues: Collection[str]) -> list[str]:
    """A sentence for each evaluated model that is asked in another form than it learnt dialogues in.

    dialogues: stages whose packs hold tokens that are read and not learnt.
    """
    if recipe.evaluate is None:
        return []
    found = []
    for model in recipe.evaluate.models:
        stage = next((s for s in chain(plans, model) if s in dialogues), None)
        if stage is None:
            continue
        learnt, has = plans[stage][0].chat_template, template_of(plans, model, base)
        told = f"{model} learnt dialogues " + (
            f"with chat template {learnt}" if learnt != "none" else "without a template"
        )
        if recipe.evaluate.chat == "off" and learnt != "none":
            found.append(f"{told} (stage {stage}) and is asked without; set evaluate.chat to on or both.")
        elif recipe.evaluate.chat != "off" and learnt != has:
            found.append(f"{told} (stage {stage}) and is asked with {has}; set stages.{stage}.chat_template to {has}.")
    return found

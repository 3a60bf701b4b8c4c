"""Shares of a corpus's sources."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.data.spec import CorpusSpec, SourceSpec
from pandallm.errors import BadInput
from pandallm.recipe.load import REMOVE
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest


def weights_of(
    corpus: CorpusSpec, given: Mapping[str, float], where: str, without: str | None = None
) -> dict[str, float]:
    """Proportions of the sources (but `without`): `given`, or the shares that the recipe sets, or the bytes that it expects of each.

    Raises BadInput where none of them says all, or where `given` names something else.
    """
    wanted = [name for name in corpus.sources if name != without]
    if given:
        for name in given:
            if name not in wanted:
                raise BadInput(f"{where}: weights: no other source '{name}'.{nearest(name, sorted(wanted))}")
        if missing := [name for name in wanted if name not in given]:
            raise BadInput(
                f"{where}: weights: source '{missing[0]}' is missing; give each of {', '.join(wanted)} a weight."
            )
        return {name: given[name] for name in wanted}
    shares = {name: corpus.sources[name].share for name in wanted}
    if any(share is None for share in shares.values()):
        shares = {name: _bytes(corpus.sources[name]) for name in wanted}
    if any(share is None for share in shares.values()):
        raise BadInput(
            f"{where}: the recipe sets no shares for {', '.join(wanted)}; give their proportions as weights: {{{', '.join(f'{n}: 1' for n in wanted)}}}."
        )
    return {name: share for name, share in shares.items() if share is not None}


def _bytes(source: SourceSpec) -> float | None:
    """UTF-8 bytes that a source is said to hold, None where the recipe does not say it."""
    expected = source.expected
    if expected is None or expected.bytes_per_record is None:
        return None
    records = min(expected.records, source.max_records or expected.records)
    return records * expected.bytes_per_record


def set_shares(
    recipe: Recipe, name: str, shares: Mapping[str, float], max_epochs: float | None = None
) -> list[tuple[str, Any]]:
    """Changes that give a corpus these shares. Sources of share 0, and those that are not named, are taken out of training."""
    corpus = recipe.corpora[name]
    out = [source for source in corpus.sources if not shares.get(source)]
    changes, name = take_out(recipe, name, out) if out else ([], name)
    for source, share in shares.items():
        if share:
            changes.append((f"corpora.{name}.sources.{source}.share", round(share, 6)))
            if max_epochs is not None:
                changes.append((f"corpora.{name}.sources.{source}.max_epochs", max_epochs))
    return changes


PART = "_part"


def training_name(recipe: Recipe, name: str) -> str:
    """The corpus that stands for `name` in training: the one of which an earlier factor has taken sources out, else itself."""
    return name + PART if name + PART in recipe.corpora else name


def take_out(recipe: Recipe, name: str, sources: Sequence[str]) -> tuple[list[tuple[str, Any]], str]:
    """Changes that train on a corpus without some of its sources, and the name of what is trained on then.

    The whole corpus stays beside it: its held-out documents are scored in every arm, also those of sources that an arm never reads.
    """
    if name.endswith(PART):
        return [(f"corpora.{name}.sources.{source}", REMOVE) for source in sources], name
    part = recipe.corpora[name].model_dump(mode="json", by_alias=True)
    part["sources"] = {n: s for n, s in part["sources"].items() if n not in sources}
    changes = add_corpus(recipe, name + PART, part)
    if recipe.base.scratch and recipe.base.scratch.train.corpus == name:
        changes.append(("base.scratch.train.corpus", name + PART))
    changes += [(f"stages.{n}.corpus", name + PART) for n, stage in recipe.stages.items() if stage.corpus == name]
    return changes, name + PART


def add_corpus(recipe: Recipe, name: str, corpus: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Changes that add a corpus for training; a vocabulary that is learnt on all corpora goes on to be learnt on the old ones."""
    changes: list[tuple[str, Any]] = [(f"corpora.{name}", dict(corpus))]
    if recipe.base.scratch and not recipe.base.scratch.tokenizer.corpora:
        changes.append(("base.scratch.tokenizer.corpora", list(recipe.corpora)))
    if recipe.base.extend and not recipe.base.extend.corpora:
        changes.append(("base.extend.corpora", list(recipe.corpora)))
    return changes

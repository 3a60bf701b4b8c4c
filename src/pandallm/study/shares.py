"""Shares of a corpus's sources."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.spec import CorpusSpec, SourceSpec
from pandallm.errors import BadInput
from pandallm.recipe.load import REMOVE
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
    name: str, corpus: CorpusSpec, shares: Mapping[str, float], max_epochs: float | None = None
) -> list[tuple[str, Any]]:
    """Changes that give a corpus these shares; a source of share 0 is taken out. Sources that are not named stay out, too."""
    changes: list[tuple[str, Any]] = []
    for source in corpus.sources:
        path = f"corpora.{name}.sources.{source}"
        if not shares.get(source):
            changes.append((path, REMOVE))
            continue
        changes.append((f"{path}.share", round(shares[source], 6)))
        if max_epochs is not None:
            changes.append((f"{path}.max_epochs", max_epochs))
    return changes

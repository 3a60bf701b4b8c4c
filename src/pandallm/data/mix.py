"""How much of each source one pass over the data reads."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pandallm.data.spec import SourceSpec
from pandallm.errors import BadInput


def wanted_shares(names: Sequence[str], sources: Mapping[str, SourceSpec]) -> NDArray[np.float64] | None:
    """Shares of the named sources, summing to 1, or None where none is set. Raises BadInput where some are."""
    given = {name: spec.share for name, spec in sources.items()}
    unset = [name for name, share in given.items() if share is None]
    if len(unset) == len(given):
        return None
    if unset:
        raise BadInput(
            f"Source {unset[0]} has no share but others have; give every source of a corpus a share, or none."
        )
    for name in given:
        if name not in names:
            raise BadInput(
                f"Source {name} has a share but no example of it was kept; take it out or loosen its cleaning."
            )
    shares = np.array([given.get(name) or 0.0 for name in names])
    return shares / shares.sum()


def source_amounts(
    unique: NDArray[np.int64], shares: NDArray[np.float64], caps: NDArray[np.float64], target: float, fill: bool
) -> NDArray[np.float64]:
    """Tokens of each source in one pass of about `target` tokens: (sources,).

    No source gives more than caps x unique tokens. fill: what a capped source cannot give comes from the others, in
    proportion to their shares (a budget of tokens or steps must be reached); without, the pass is shorter.
    """
    most = caps * unique
    if not fill:
        return np.minimum(shares * target, most)
    amounts, open_ = np.zeros(len(unique)), np.ones(len(unique), np.bool_)
    while open_.any():
        rest = target - amounts[~open_].sum()
        asked = np.where(open_, rest * shares / shares[open_].sum(), amounts)
        over = open_ & (asked >= most)
        if not over.any():
            return asked
        amounts[over] = most[over]
        open_ &= ~over
    return amounts


def unmet_shares(
    names: Sequence[str],
    unique: NDArray[np.int64],
    shares: NDArray[np.float64],
    caps: NDArray[np.float64],
    amounts: NDArray[np.float64],
    target: float,
) -> list[str]:
    """A sentence for each source that its cap keeps from its share of a pass of `target` tokens."""
    told = []
    for i in np.flatnonzero(amounts < 0.99 * shares * target).tolist():
        told.append(
            f"Source {names[i]} is to be {shares[i]:.1%} of the tokens ({shares[i] * target:,.0f}), but {unique[i]:,} tokens at "
            f"most {caps[i]:g} times give {amounts[i]:,.0f}, {amounts[i] / amounts.sum():.1%}; raise its max_epochs to "
            f"{shares[i] * target / unique[i]:.3g}, lower its share, or take a smaller budget."
        )
    return told


def example_copies(
    lengths: NDArray[np.integer], sources: NDArray[np.integer], amounts: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """How often each example stands in one pass: (examples,).

    A source is repeated whole as often as its amount holds it, and a seeded random part of it once more. Examples of
    length 0 stay out.
    """
    copies = np.zeros(len(lengths), np.int64)
    for source, amount in enumerate(amounts.tolist()):
        members = np.flatnonzero((sources == source) & (lengths > 0))
        total = int(lengths[members].sum())
        if not total:
            continue
        whole = int(amount // total)
        copies[members] = whole
        shuffled = np.random.default_rng([seed, 1, source]).permutation(members)
        # An example belongs to the part when more than half of it does.
        ends = np.cumsum(lengths[shuffled])
        part = ends - lengths[shuffled] / 2 < amount - whole * total
        copies[shuffled[part]] += 1
    return copies

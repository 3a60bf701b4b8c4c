"""Which arms, with which weights, make up the two sides of a comparison."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = Mapping[str, str]
Vector = NDArray[np.float64]
#: A side's value is the sum over arms of weight x measurement.
Weights = dict[str, float]


@dataclass(frozen=True)
class Sides:
    """The two sides of a comparison. `count`: the pairs of arms, or the arms of a fit, that it rests on."""

    a: Weights
    b: Weights
    count: int

    @property
    def arms(self) -> list[str]:
        """Every arm that either side needs."""
        return list(dict.fromkeys([*self.a, *self.b]))


def pairs_of(arms: Mapping[str, Levels], a: Levels, b: Levels) -> list[tuple[str, str]]:
    """Pairs of arms, the first with the levels of `a`, the second with those of `b`, that differ in nothing else."""
    return [
        (x, y)
        for (x, at), (y, other) in itertools.product(arms.items(), arms.items())
        if all(at[f] == level for f, level in a.items())
        and all(other[f] == level for f, level in b.items())
        and all(at[f] == other[f] for f in at if f not in a)
    ]


def mean_of_pairs(pairs: Sequence[tuple[str, str]]) -> Sides | None:
    """Both sides as means over pairs; None without any."""
    if not pairs:
        return None
    a: Weights = {}
    b: Weights = {}
    for x, y in pairs:
        a[x] = a.get(x, 0.0) + 1 / len(pairs)
        b[y] = b.get(y, 0.0) + 1 / len(pairs)
    return Sides(a, b, len(pairs))


def least_squares(
    arms: Mapping[str, Levels], factors: Mapping[str, Sequence[str]], a: Levels, b: Levels
) -> Sides | None:
    """Both sides as least-squares means: what the additive model fitted to these arms says of them, other factors' levels counted equally.

    y = mean + one term for each factor's level, no interactions; with a full grid the difference is that of the pairs. Searle, Speed &
    Milliken 1980 (Am. Stat. 34:216). `factors`: factor -> all its levels. None where these arms do not tell the sides apart.
    """
    columns = [(name, level) for name, levels in factors.items() for level in levels[1:]]
    x = np.array([[1.0, *(float(levels[n] == level) for n, level in columns)] for levels in arms.values()])

    def row(side: Levels) -> Vector:
        shares = [float(side[n] == level) if n in side else 1 / len(factors[n]) for n, level in columns]
        return np.array([1.0, *shares])

    inverse = np.linalg.pinv(x)
    sides = []
    for side in (a, b):
        weights = row(side) @ inverse
        # What the arms do not span is not estimated, also where only one side misses it: a ratio needs both.
        if not np.allclose(weights @ x, row(side), atol=1e-8):
            return None
        sides.append({name: float(w) for name, w in zip(arms, weights) if abs(w) > 1e-12})
    return Sides(sides[0], sides[1], len(arms))

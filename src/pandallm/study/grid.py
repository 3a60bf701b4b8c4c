"""Which combinations of levels become arms."""

import itertools
from collections.abc import Mapping

from pandallm.errors import BadInput
from pandallm.study.spec import AnyFactor, FractionalGrid, OneAtATimeGrid, StudySpec

#: More arms than this is a mistake in the file.
MAX_ARMS = 4096

Levels = dict[str, str]


def combinations(study: StudySpec, where: str) -> list[Levels]:
    """The arms as factor -> level; in the order of the levels, the last factor turning fastest. Raises BadInput."""
    factors = study.factors
    size = 1
    for factor in factors.values():
        size *= len(factor.levels)
    if isinstance(study.grid, OneAtATimeGrid):
        centre = {name: factor.reference for name, factor in factors.items()}
        arms = [centre]
        for name, factor in factors.items():
            arms += [centre | {name: level} for level in factor.levels if level != factor.reference]
        return arms
    if size > MAX_ARMS:
        raise BadInput(
            f"{where}: the full grid has {size:,} arms, {MAX_ARMS:,} are allowed; take fewer levels or grid: one_at_a_time."
        )
    full = [dict(zip(factors, levels)) for levels in itertools.product(*(f.levels for f in factors.values()))]
    if isinstance(study.grid, FractionalGrid):
        return _fraction(full, factors, study.grid.arms, where)
    return full


def _fraction(full: list[Levels], factors: Mapping[str, AnyFactor], count: int, where: str) -> list[Levels]:
    """`count` arms that estimate the main effects best: exchange of arms until det(X'X) grows no more (Fedorov 1972).

    X has a column of ones and one per level but the baseline of each factor. Nothing is drawn: ties go to the earlier arm.
    """
    import numpy as np

    columns = [(name, level) for name, f in factors.items() for level in f.levels if level != f.reference]
    if count < len(columns) + 1:
        raise BadInput(
            f"{where}: grid.arms: {count} arms cannot tell {len(columns)} main effects apart; at least {len(columns) + 1} are needed."
        )
    if count > len(full):
        raise BadInput(
            f"{where}: grid.arms: {count} arms are asked for, the full grid has {len(full)}; ask for fewer or take grid: full."
        )
    if count == len(full):
        return full
    x = np.array([[1.0, *(float(arm[name] == level) for name, level in columns)] for arm in full])
    centre = next(i for i, arm in enumerate(full) if all(arm[n] == f.reference for n, f in factors.items()))
    chosen = [centre]
    # A little of the identity makes the first few arms comparable, which alone estimate nothing.
    information = 1e-6 * np.eye(x.shape[1]) + np.outer(x[centre], x[centre])
    while len(chosen) < count:
        inverse = np.linalg.inv(information)
        gain = np.einsum("ij,jk,ik->i", x, inverse, x)
        gain[chosen] = -1.0
        best = int(np.argmax(np.round(gain, 9)))
        chosen.append(best)
        information += np.outer(x[best], x[best])
    for _ in range(100):
        here = np.linalg.slogdet(information)[1]
        found: tuple[float, int, int] | None = None
        for place in range(1, count):  # the baselines' arm stays
            without = information - np.outer(x[chosen[place]], x[chosen[place]])
            for other in range(len(full)):
                if other not in chosen:
                    there = np.linalg.slogdet(without + np.outer(x[other], x[other]))[1]
                    if there > here + 1e-9 and (found is None or there > found[0] + 1e-9):
                        found = (there, place, other)
        if found is None:
            break
        _, place, other = found
        information += np.outer(x[other], x[other]) - np.outer(x[chosen[place]], x[chosen[place]])
        chosen[place] = other
    return [full[i] for i in sorted(chosen)]

"""Two arms of a study: the same seeds, in each seed the same units (questions, held-out documents)."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeedPair:
    """One seed's measurements of both arms, unit by unit: (units,). `clusters`: which units belong together (a passage)."""

    a: Array
    b: Array
    clusters: tuple[Hashable, ...]


@dataclass(frozen=True)
class SeedEffect:
    """b against a over seeds: effect with its interval, two-sided p of no effect; `by_seed`: the effect of each seed alone.

    With one seed `se` and the interval cover the choice of units only.
    """

    effect: float
    low: float
    high: float
    se: float
    p: float
    seeds: int
    units: int
    clusters: int
    by_seed: tuple[float, ...]
    df: tuple[float, float]
    variances: tuple[float, float]
    relative: bool = False

    def p_above(self, level: float) -> float:
        """One-sided p of `effect >= level`: small where the effect is surely below it.

        Where no answer differed, (1 - (level - effect))^clusters: the chance that no cluster shows what that share of them has. Bits that
        are all equal are those of equal models.
        """
        return self._one_sided(self.effect - level)

    def p_below(self, level: float) -> float:
        """One-sided p of `effect <= level`; where nothing varied, as `p_above`."""
        return self._one_sided(level - self.effect)

    def _one_sided(self, beyond: float) -> float:
        """p of a true value on the far side of a level that the estimate is `beyond` (negative: short of it)."""
        if self.se > 0:
            return _tail(beyond / self.se, self.variances, self.df)
        if math.isnan(self.se):
            return 1.0
        return float(beyond >= 0) if self.relative else (1 - max(0.0, min(1.0, -beyond))) ** self.clusters

    def detectable(self, seeds: int, confidence: float = 0.95, power: float = 0.8) -> float:
        """Smallest true effect that as many `seeds` would find with probability `power`, from the spread seen here; nan with one seed."""
        if self.seeds < 2 or seeds < 2:
            return math.nan
        se = math.sqrt(self.variances[0] * self.seeds / seeds + self.variances[1])
        df = seeds - 1
        return float((special.stdtrit(df, 0.5 + confidence / 2) + special.stdtrit(df, power)) * se)


def seed_effect(
    pairs: Sequence[SeedPair], *, relative: bool = False, crossed: bool = True, confidence: float = 0.95
) -> SeedEffect:
    """Effect of b against a: the mean of b - a, or with `relative` sum(b) / sum(a) - 1 (bits of the same text).

    Seeds and clusters of units are both samples. `crossed`: all seeds were asked the same units; the variance is that of two-way
    clustering, V_seeds + V_clusters - V_cells (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238), at least the larger of
    the first two. Otherwise each seed has units of its own (another made-up world), and the spread of the seeds holds theirs. V_g sums
    the squared influence of group g, times G / (G - 1); a ratio is linearised (Cochran 1977, chapter 6). The t quantile is the mean of
    those with (seeds - 1) and with (clusters - 1) degrees of freedom, weighted by the variances (Cochran & Cox 1950).
    Raises ValueError for no pairs, or sides of different lengths.
    """
    if not pairs or any(p.a.shape != p.b.shape or len(p.clusters) != p.a.size or not p.a.size for p in pairs):
        raise ValueError("each seed needs the same units in both arms, at least one")
    total = float(sum(p.a.sum() for p in pairs)) if relative else float(sum(p.a.size for p in pairs))
    if total <= 0:
        raise ValueError("the measurements of a must add up to a positive number")
    if relative:
        ratio = float(sum(p.b.sum() for p in pairs)) / total
        effect = ratio - 1
        influence = [(p.b - ratio * p.a) / total for p in pairs]
        by_seed = tuple(float(p.b.sum() / p.a.sum()) - 1 for p in pairs)
    else:
        effect = float(sum((p.b - p.a).sum() for p in pairs)) / total
        influence = [(p.b - p.a - effect) / total for p in pairs]
        by_seed = tuple(float((p.b - p.a).mean()) for p in pairs)
    seeds = len(pairs)
    between = _variance(np.array([u.sum() for u in influence]))
    if crossed or seeds < 2:
        names: dict[Hashable, int] = {}
        index = [np.array([names.setdefault(c, len(names)) for c in p.clusters], dtype=np.intp) for p in pairs]
        groups = len(names)
        cells = np.array([np.bincount(i, weights=u, minlength=groups) for i, u in zip(index, influence)])
        within = _variance(cells.sum(axis=0))
        # What the cells add is counted in both; it is taken out where it was counted twice, and never more.
        both = max(between, within, between + within - float((cells**2).sum())) if groups > 1 else between
        variances = (between, both - between) if seeds > 1 else (0.0, within)
    else:
        groups = sum(len(set(p.clusters)) for p in pairs)
        variances = (between, 0.0)
    units = sum(p.a.size for p in pairs)
    df = (max(seeds - 1.0, 1.0), max(groups - 1.0, 1.0))
    spread = sum(variances)
    se = math.sqrt(spread) if math.isfinite(spread) else math.nan
    if not se > 0:  # nothing varied, or one unit alone
        p = 1.0 if effect == 0 else math.nan
        nothing = effect if se == 0 else math.nan
        return SeedEffect(effect, nothing, nothing, se, p, seeds, units, groups, by_seed, df, variances, relative)
    reach = _quantile(0.5 + confidence / 2, variances, df) * se
    p = 2 * _tail(-abs(effect) / se, variances, df)
    return SeedEffect(
        effect, effect - reach, effect + reach, se, min(1.0, p), seeds, units, groups, by_seed, df, variances, relative
    )


def _variance(sums: Array) -> float:
    """Variance of a total from its groups' influences, which add up to 0; nan for one group."""
    return math.nan if sums.size < 2 else float(sums @ sums) * sums.size / (sums.size - 1)


def _quantile(share: float, variances: tuple[float, float], df: tuple[float, float]) -> float:
    t = special.stdtrit(np.array(df), share)
    return float((variances[0] * t[0] + variances[1] * t[1]) / sum(variances))


def _tail(t: float, variances: tuple[float, float], df: tuple[float, float]) -> float:
    """P(T < t) by the weighted quantiles, found by bisection (they grow with the probability)."""
    low, high = 1e-12, 1 - 1e-12
    for _ in range(80):
        middle = (low + high) / 2
        if _quantile(middle, variances, df) < t:
            low = middle
        else:
            high = middle
    return (low + high) / 2

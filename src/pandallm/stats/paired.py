"""Two systems on the same questions: difference, interval, p; several of them: Holm."""

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pandallm.stats.intervals import Estimate, cluster_bootstrap, cluster_index, mean_of_clusters, t_quantile

#: Up to this many clusters every sign pattern is enumerated (2^12 = 4096) and p is exact.
EXACT_CLUSTERS = 12


@dataclass(frozen=True)
class Comparison:
    """b - a on the same questions: difference with its clustered interval, and the sign-flip p."""

    difference: Estimate
    p: float


def paired_difference(
    a: Sequence[float] | NDArray[np.float64],
    b: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Mean of b - a (each within [0, 1]) and the p of no difference, with whole clusters flipped.

    The interval is `clustered_mean`'s of the differences, within [-1, 1]. The p is a sign-flip (randomisation) test:
    under the null a cluster's summed difference is as likely its negative; two-sided, exact up to 12 clusters that
    differ, else (1 + hits) / (1 + resamples). Two systems that agree everywhere give p = 1 and an interval that still
    admits rare disagreement: ± t²/(G + t²).
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} values of a but {y.size} of b")
    difference = y - x
    if not difference.size:
        raise ValueError("no values")
    index, groups = cluster_index(clusters, difference.size)
    estimate = mean_of_clusters(difference, index, groups, confidence, (-1.0, 1.0))
    if not difference.any() and estimate.clusters > 1:
        # Not Wilson's half-way bound: no question moved, so the share that moves is what is bounded.
        t2 = t_quantile(confidence, estimate.clusters) ** 2
        reach = t2 / (estimate.clusters + t2)
        estimate = Estimate(0.0, -reach, reach, 0.0, estimate.n, estimate.clusters)
    sums: NDArray[np.float64] = np.bincount(index, weights=difference, minlength=groups).astype(np.float64)
    return Comparison(estimate, _sign_flip(sums, resamples, seed))


def _sign_flip(sums: NDArray[np.float64], resamples: int, seed: int) -> float:
    sums = sums[np.abs(sums) > 1e-12]
    if not sums.size:
        return 1.0
    observed = abs(sums.sum()) - 1e-9
    if sums.size <= EXACT_CLUSTERS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=sums.size)))
        return float(np.mean(np.abs(signs @ sums) >= observed))
    rng = np.random.default_rng(seed)
    total, hits, block = sums.sum(), 0, max(1, 2_000_000 // sums.size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        # Signs are 2 bits - 1: the sum of signed values is twice that of the chosen ones less the total.
        bits = rng.integers(0, 2, (rows, sums.size), dtype=np.int8).astype(np.float64)
        hits += int(np.count_nonzero(np.abs(2 * (bits @ sums) - total) >= observed))
    return (1 + hits) / (1 + resamples)


@dataclass(frozen=True)
class McNemar:
    """How many questions only a, and only b, answered right, and the p of no difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: Sequence[float] | NDArray[np.float64], b: Sequence[float] | NDArray[np.float64]) -> McNemar:
    """McNemar's (1947) test, exact: of the questions that one system alone answered right, is one half each system's?

    `a`, `b`: right or wrong (1, 0, or bool) per question. p = 2 P(X <= min(only_a, only_b)), X binomial(only_a + only_b,
    1/2), at most 1. It takes questions for independent: where several share a passage and both systems move with it, p
    is too small, and `paired_difference` is the test to use.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} values of a but {y.size} of b")
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise ValueError("McNemar's test takes right (1) and wrong (0) only")
    only_a, only_b = int(np.count_nonzero(x > y)), int(np.count_nonzero(y > x))
    p = float(2 * special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, p))


def paired_bootstrap(
    a: Sequence[float] | NDArray[np.float64],
    b: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of b - a with the percentile interval of a bootstrap over whole clusters (Efron & Tibshirani 1993, ch. 13).

    Same input and seed, same interval. Too narrow with fewer than some 500 clusters, where `paired_difference` is the one to
    use.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} values of a but {y.size} of b")
    return cluster_bootstrap(y - x, None, clusters, confidence, resamples, seed)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def minimum_detectable_difference(se: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a test at 1 - `confidence` finds with probability `power`, from its se."""
    return float((special.ndtri(0.5 + confidence / 2) + special.ndtri(power)) * se)

"""Means, ratios and their intervals where observations come in clusters (questions of one passage).

Source of the clustered errors: Liang & Zeger (1986); for evaluations, Miller (2024), arXiv 2411.00640, section 2.2.
Notation: y_i values, g clusters, n = number of values, G = number of clusters.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval. `low`, `high` and `se` are nan where one cluster gives no interval.

    `df`: degrees of freedom of the t interval where they are not `clusters` - 1.
    """

    mean: float
    low: float
    high: float
    se: float
    n: int
    clusters: int
    df: float | None = None


def cluster_index(clusters: Sequence[Hashable] | None, n: int) -> tuple[NDArray[np.intp], int]:
    """(index of each value's cluster, in order of first sight; number of clusters). None: every value its own."""
    if clusters is None:
        return np.arange(n), n
    if len(clusters) != n:
        raise ValueError(f"{n} values but {len(clusters)} clusters")
    seen: dict[Hashable, int] = {}
    index = np.array([seen.setdefault(c, len(seen)) for c in clusters], dtype=np.intp)
    return index, len(seen)


def clustered_mean(
    values: Sequence[float] | Array,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Estimate:
    """Mean of `values` with a cluster-robust interval.

    se² = sum_g r_g² / (1 - m_g/n) / n², r_g = sum_{i in g} (y_i - mean), m_g the size of cluster g: Liang & Zeger's sum,
    corrected for the mean being estimated as Bell & McCaffrey (2002, Surv. Methodol. 28:169) do. With equal sizes the
    correction is the usual G/(G-1). Interval mean ± t(df) se, clipped to `bounds`; df = n² / sum_g m_g² - 1, Kish's
    effective number of clusters less one (just below Bell & McCaffrey's Satterthwaite degrees; G - 1 with equal sizes):
    with few clusters of unequal sizes G - 1 gives too narrow an interval. Where all residuals vanish (every answer right, or wrong) that width would be zero. Then the interval is Wilson's
    with the G clusters as the observations and the t quantile, so it is never narrower than the clusters allow.
    One cluster says nothing of the spread: the interval is then `bounds`, or nan without them.
    Raises ValueError for no values.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.size == 0:
        raise ValueError("no values")
    index, groups = cluster_index(clusters, y.size)
    return mean_of_clusters(y, index, groups, confidence, bounds)


def mean_of_clusters(
    y: Array, index: NDArray[np.intp], groups: int, confidence: float, bounds: tuple[float, float] | None
) -> Estimate:
    """`clustered_mean` of values whose clusters are numbered already, as by `cluster_index`."""
    mean = float(y.mean())
    if groups == 1:
        low, high = bounds if bounds is not None else (math.nan, math.nan)
        return Estimate(mean, low, high, math.nan, y.size, 1)
    size = np.bincount(index, minlength=groups).astype(np.float64)
    residual = np.bincount(index, weights=y - mean, minlength=groups)
    se = math.sqrt(float((residual**2 / (1 - size / y.size)).sum())) / y.size
    df = y.size**2 / float(size @ size) - 1
    t = float(special.stdtrit(df, 0.5 + confidence / 2))
    if bounds is None:
        return Estimate(mean, mean - t * se, mean + t * se, se, y.size, groups, df)
    width = bounds[1] - bounds[0]
    if se <= 1e-12 * width:
        low, high = _wilson((mean - bounds[0]) / width, groups, t)
        return Estimate(mean, bounds[0] + width * low, bounds[0] + width * high, 0.0, y.size, groups, df)
    return Estimate(mean, max(bounds[0], mean - t * se), min(bounds[1], mean + t * se), se, y.size, groups, df)


def t_quantile(confidence: float, groups: int) -> float:
    """Two-sided quantile of Student's t with `groups` - 1 degrees of freedom."""
    return float(special.stdtrit(groups - 1, 0.5 + confidence / 2))


def _wilson(p: float, n: int, z: float) -> tuple[float, float]:
    """Wilson (1927) score interval of a proportion `p` of `n`."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, p * (1 - p) / n) + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def cluster_bootstrap(
    numerators: Sequence[float] | Array,
    denominators: Sequence[float] | Array | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of sum(numerators) / sum(denominators) under resampling of whole clusters.

    Without denominators: of the mean. Same input and seed, same interval. `se` is the resamples' standard deviation.
    """
    x = np.asarray(numerators, dtype=np.float64)
    if x.size == 0:
        raise ValueError("no values")
    d = np.ones_like(x) if denominators is None else np.asarray(denominators, dtype=np.float64)
    index, groups = cluster_index(clusters, x.size)
    value = float(x.sum() / d.sum())
    if groups == 1:
        return Estimate(value, math.nan, math.nan, math.nan, x.size, 1)
    top = np.bincount(index, weights=x, minlength=groups)
    bottom = np.bincount(index, weights=d, minlength=groups)
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    block = max(1, 500_000 // groups)
    for start in range(0, resamples, block):
        pick = rng.integers(0, groups, (min(block, resamples - start), groups))
        drawn[start : start + len(pick)] = top[pick].sum(axis=1) / bottom[pick].sum(axis=1)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high), float(drawn.std(ddof=1)), x.size, groups)


def ratio_estimate(
    numerators: Sequence[float] | Array,
    denominators: Sequence[float] | Array,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """R = sum(numerators) / sum(denominators), e.g. bits per byte over documents, with a clustered interval.

    Jackknife over clusters, linearised (Cochran 1977, Sampling Techniques, chapter 6): residual
    r_g = sum_{i in g} (x_i - R d_i), h_g cluster g's share of the denominators,
    se² = (G-1)/G * sum (r_g / (1 - h_g))² / (sum d)²; interval R ± t(df) se, df = 1 / sum h_g² - 1, Kish's effective number
    of clusters less one. Without the two corrections it is too narrow where a few documents hold most of the text.
    nan with one cluster, and where one cluster weighs so much that fewer than two effective ones are left (df < 1): the
    interval would be wider than any number it could hold. Raises ValueError for no values and for denominators that do
    not add up to something positive or of which one cluster holds everything.
    """
    x = np.asarray(numerators, dtype=np.float64)
    d = np.asarray(denominators, dtype=np.float64)
    if x.size == 0 or x.size != d.size:
        raise ValueError(f"{x.size} numerators and {d.size} denominators")
    total = float(d.sum())
    if total <= 0:
        raise ValueError("the denominators must add up to a positive number")
    index, groups = cluster_index(clusters, x.size)
    ratio = float(x.sum()) / total
    if groups == 1:
        return Estimate(ratio, math.nan, math.nan, math.nan, x.size, 1)
    share = np.bincount(index, weights=d, minlength=groups) / total
    if share.max() >= 1 or share.min() < 0:
        raise ValueError("the denominators must be 0 or more, and of more than one cluster")
    residual = np.bincount(index, weights=x - ratio * d, minlength=groups) / (1 - share)
    se = math.sqrt((groups - 1) / groups * float(residual @ residual)) / total
    df = 1 / float(share @ share) - 1
    if df < 1:
        return Estimate(ratio, math.nan, math.nan, se, x.size, groups, df)
    t = float(special.stdtrit(df, 0.5 + confidence / 2))
    return Estimate(ratio, ratio - t * se, ratio + t * se, se, x.size, groups, df)


def ratio_change(
    a: Sequence[float] | Array,
    b: Sequence[float] | Array,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """sum(b) / sum(a) - 1 of paired measurements on the same documents (bits of two models), clustered."""
    r = ratio_estimate(b, a, clusters, confidence)
    return Estimate(r.mean - 1, r.low - 1, r.high - 1, r.se, r.n, r.clusters, r.df)


def chance(options: Sequence[int]) -> float:
    """Expected accuracy of guessing among each question's own number of options."""
    if not len(options):
        raise ValueError("no questions")
    return float(np.mean([1 / k for k in options]))


def best_constant(answers: Sequence[int]) -> tuple[int, float]:
    """(position, accuracy) of the best constant answer: what always naming one letter would score. First wins ties."""
    if not len(answers):
        raise ValueError("no questions")
    counts = np.bincount(np.asarray(answers, dtype=np.intp))
    return int(counts.argmax()), float(counts.max() / len(answers))


def as_json(value: float) -> Any:
    """`value` rounded to 6 places, None where it is nan or infinite: JSON has neither."""
    return round(float(value), 6) if math.isfinite(value) else None

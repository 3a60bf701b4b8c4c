"""What a comparison can find, before it is run."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.stats.intervals import cluster_index
from pandallm.stats.paired import minimum_detectable_difference


def design_effect(cluster_sizes: Sequence[int], icc: float) -> float:
    """By how much clusters inflate the variance of a mean: 1 + icc (sum m² / sum m - 1), m the clusters' sizes.

    Kish (1965), Survey Sampling, with the size that a question meets on average in place of equal sizes.
    `icc`: intraclass correlation. Raises ValueError for no clusters or a size below 1.
    """
    m = np.asarray(cluster_sizes, dtype=np.float64)
    if not m.size or m.min() < 1:
        raise ValueError("the clusters' sizes must be 1 or more")
    return 1 + icc * (float(m @ m) / float(m.sum()) - 1)


def intraclass_correlation(values: Sequence[float] | NDArray[np.float64], clusters: Sequence[Hashable]) -> float:
    """How alike values of one cluster are: 0 not at all, 1 equal. One-way analysis of variance (Fisher 1925; Donner 1986).

    (MSB - MSW) / (MSB + (m0 - 1) MSW), m0 = (n - sum m² / n) / (G - 1). May be below 0. nan where no cluster has two
    values, where there is one cluster, or where nothing varies.
    """
    y = np.asarray(values, dtype=np.float64)
    index, groups = cluster_index(clusters, y.size)
    if groups < 2 or y.size <= groups:
        return math.nan
    m = np.bincount(index, minlength=groups)
    means = np.bincount(index, weights=y, minlength=groups) / m
    between = float(m @ (means - y.mean()) ** 2) / (groups - 1)
    within = float(((y - means[index]) ** 2).sum()) / (y.size - groups)
    m0 = (y.size - float(m @ m) / y.size) / (groups - 1)
    bottom = between + (m0 - 1) * within
    return (between - within) / bottom if bottom > 1e-15 else math.nan


def detectable_unpaired(n: int, accuracy: float, deff: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """Smallest difference of two accuracies, each over `n` questions of which only counts are known, in [0, 1].

    (z(1 - alpha/2) + z(power)) sqrt(2 accuracy (1 - accuracy) deff / n). `deff`: `design_effect`.
    """
    _check(n, accuracy, "accuracy", deff)
    return minimum_detectable_difference(math.sqrt(2 * accuracy * (1 - accuracy) * deff / n), confidence, power)


def detectable_paired(n: int, discordance: float, deff: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """Smallest difference of two systems on the same `n` questions, of which they differ on a share `discordance`.

    (z(1 - alpha/2) + z(power)) sqrt(discordance deff / n): the variance of McNemar's test under the null (Connor 1987).
    `deff` is that of the differences, whose correlation within a passage is as a rule smaller than the answers'. A
    difference cannot be larger than the discordance: a figure above it says that no difference can be found.
    """
    _check(n, discordance, "discordance", deff)
    return minimum_detectable_difference(math.sqrt(discordance * deff / n), confidence, power)


def plan_before(
    n: int,
    cluster_sizes: Sequence[int],
    accuracy: float = 0.4,
    icc: float = 0.2,
    discordance: float = 0.2,
    confidence: float = 0.95,
    power: float = 0.8,
) -> dict[str, Any]:
    """What a run over `n` questions in clusters of these sizes can find: known before it, on the stated assumptions.

    {"questions", "passages", "design_effect", "unpaired", "paired" (smallest differences, in [0, 1]), "accuracy", "icc",
    "discordance", "confidence", "power", "text" (one line for people)}. The same `icc` serves answers and differences,
    which errs on the careful side. Raises ValueError if the sizes do not add up to `n`.
    """
    if sum(cluster_sizes) != n:
        raise ValueError(f"{n} questions, but the clusters hold {sum(cluster_sizes)}")
    deff = design_effect(cluster_sizes, icc)
    unpaired = detectable_unpaired(n, accuracy, deff, confidence, power)
    paired = detectable_paired(n, discordance, deff, confidence, power)
    return {
        "questions": n,
        "passages": len(cluster_sizes),
        "design_effect": deff,
        "unpaired": unpaired,
        "paired": paired,
        "accuracy": accuracy,
        "icc": icc,
        "discordance": discordance,
        "confidence": confidence,
        "power": power,
        "text": (
            f"{n} questions, {len(cluster_sizes)} passages; smallest difference one can find: "
            f"unpaired {100 * unpaired:.1f} points, paired {100 * paired:.1f} points "
            f"({100 * power:.0f} % power, accuracy near {100 * accuracy:.0f} %, "
            f"{100 * discordance:.0f} % of the questions answered differently, correlation {icc:g} within a passage)"
        ),
    }


def _check(n: int, share: float, name: str, deff: float) -> None:
    if n < 1 or not 0 <= share <= 1 or not deff > 0:
        raise ValueError(f"need n >= 1, {name} within [0, 1] and deff > 0; found {n}, {share}, {deff}")

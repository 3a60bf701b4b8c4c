"""Two accuracies of which only the counts are known, as in a published table."""

import math
from dataclasses import dataclass

from scipy import special

from pandallm.stats.intervals import Estimate
from pandallm.stats.paired import Comparison


@dataclass(frozen=True)
class Unpaired(Comparison):
    """b - a with its interval, p and z; z > 0: b is better."""

    z: float


def proportion(right: int, n: int, deff: float = 1.0, confidence: float = 0.95) -> Estimate:
    """Accuracy right / n with Wilson's (1927) score interval over n / deff effective questions (Kish 1965).

    `clusters` of the result is the effective number, rounded. Raises ValueError for counts that cannot be.
    """
    _check(right, n, deff)
    p, effective = right / n, n / deff
    z = float(special.ndtri(0.5 + confidence / 2))
    low, high = _score(p, effective, z)
    return Estimate(p, low, high, math.sqrt(p * (1 - p) / effective), n, round(effective))


def unpaired_difference(
    right_a: int, n_a: int, right_b: int, n_b: int, deff: float = 1.0, confidence: float = 0.95
) -> Unpaired:
    """right_b / n_b - right_a / n_a, each question's variance inflated by `deff` (see `power.design_effect`).

    z = (p_b - p_a) / sqrt(deff p (1 - p) (1/n_a + 1/n_b)), p the pooled accuracy; p two-sided from the normal. Interval:
    Newcombe (1998), Stat. Med. 17:873, method 10, from score intervals over n / deff effective questions; `se` is not
    pooled. Where both answered the same questions this wastes what pairing gives: it is for counts only.
    Raises ValueError for counts that cannot be.
    """
    a, b = proportion(right_a, n_a, deff, confidence), proportion(right_b, n_b, deff, confidence)
    d = b.mean - a.mean
    low = d - math.hypot(b.mean - b.low, a.high - a.mean)
    high = d + math.hypot(b.high - b.mean, a.mean - a.low)
    pooled = (right_a + right_b) / (n_a + n_b)
    null = math.sqrt(deff * pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    z = d / null if null > 0 else 0.0
    estimate = Estimate(d, low, high, math.hypot(a.se, b.se), n_a + n_b, round((n_a + n_b) / deff))
    return Unpaired(estimate, float(2 * special.ndtr(-abs(z))), z)


def against_fixed(right: int, n: int, level: float, deff: float = 1.0) -> tuple[float, float]:
    """(z, two-sided p) of an accuracy against a known level, such as chance: the score test, z over n / deff questions.

    Raises ValueError for counts that cannot be and for a level that is not between 0 and 1.
    """
    _check(right, n, deff)
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, found {level}")
    z = (right / n - level) / math.sqrt(deff * level * (1 - level) / n)
    return z, float(2 * special.ndtr(-abs(z)))


def _score(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def _check(right: int, n: int, deff: float) -> None:
    if not 0 <= right <= n or n < 1 or not deff > 0:
        raise ValueError(f"need 0 <= right <= n, n >= 1 and deff > 0; found right {right}, n {n}, deff {deff}")

"""Are two systems the same for practical purposes? A difference that is not significant does not say so."""

import math
from dataclasses import dataclass

from scipy import stats as distributions

from pandallm.stats.intervals import Estimate


@dataclass(frozen=True)
class Equivalence:
    """`p` of the two one-sided tests; `equivalent`: p < alpha, the difference lies within the margin."""

    p: float
    equivalent: bool


def equivalence(difference: Estimate, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests (TOST; Schuirmann 1987) of |true difference| >= `margin` (same units as the difference).

    p = max of P(T > (margin + d) / se) and P(T > (margin - d) / se), T Student's t with clusters - 1 degrees of freedom.
    p < alpha says the same as: the 1 - 2 alpha interval lies within ± margin. Choose the margin before looking.
    Where nothing varied (se = 0) the t test would claim certainty; then p = (1 - (margin - |d|))^clusters, the chance
    that no cluster shows what a share of margin - |d| of them has. One cluster says nothing: p = 1.
    Raises ValueError for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, found {margin}")
    d, se, groups = difference.mean, difference.se, difference.clusters
    if groups < 2 or math.isnan(se):
        return Equivalence(1.0, False)
    if se <= 1e-12:
        p = (1 - max(0.0, min(1.0, margin - abs(d)))) ** groups
    else:
        p = float(distributions.t.sf((margin - abs(d)) / se, groups - 1))
    return Equivalence(p, p < alpha)

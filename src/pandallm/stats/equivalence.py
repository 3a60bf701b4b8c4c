"""Are two systems the same for practical purposes? A difference that is not significant does not say so."""

import math
from dataclasses import dataclass

from scipy import special

from pandallm.stats.intervals import Estimate


@dataclass(frozen=True)
class Equivalence:
    """`p` of the two one-sided tests; `equivalent`: p < alpha, the difference lies within the margin."""

    p: float
    equivalent: bool


def equivalence(difference: Estimate, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests (TOST; Schuirmann 1987) of |true difference| >= `margin` (same units as the difference).

    p = max of P(T > (margin + d) / se) and P(T > (margin - d) / se), T Student's t with the difference's degrees of freedom.
    p < alpha says the same as: the 1 - 2 alpha interval lies within ± margin. Choose the margin before looking.
    Where nothing varied (se = 0) the t test would claim certainty; then p = (1 - (margin - |d|))^clusters, the chance
    that no cluster shows what a share of margin - |d| of them has. One cluster says nothing: p = 1.
    Meant for 500 clusters or more and margins up to .05: where few clusters differ, a small difference comes with a small
    error, and with 20 clusters and a margin of .1 one in ten verdicts at the margin was wrong.
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
        df = groups - 1 if difference.df is None else difference.df
        p = float(special.stdtr(df, (abs(d) - margin) / se))
    return Equivalence(p, p < alpha)

import math

import numpy as np
import pytest
from scipy import stats as distributions

from pandallm.stats.intervals import clustered_mean
from pandallm.stats.unpaired import against_fixed, proportion, unpaired_difference


def test_by_hand() -> None:
    # 437 against 509 of 1594: pooled 946 / 3188 = .296738; se = sqrt(.296738 * .703262 * 2 / 1594) = .0161813;
    # d = 72 / 1594 = .0451694; z = 2.7915, p = .0052.
    u = unpaired_difference(437, 1594, 509, 1594)
    assert u.difference.mean == pytest.approx(72 / 1594)
    assert u.z == pytest.approx(2.7915, abs=1e-4)
    assert u.p == pytest.approx(0.00525, abs=1e-5)
    # A design effect of 4 halves z.
    assert unpaired_difference(437, 1594, 509, 1594, deff=4).z == pytest.approx(2.7915 / 2, abs=1e-4)
    back = unpaired_difference(509, 1594, 437, 1594)
    assert (back.z, back.p, back.difference.low) == (-u.z, u.p, -u.difference.high)


def test_z_squared_is_the_chi_squared_test() -> None:
    table = [[813, 1890 - 813], [874, 2002 - 874]]
    chi2, p = distributions.chi2_contingency(table, correction=False)[:2]
    u = unpaired_difference(813, 1890, 874, 2002)
    assert (u.z**2, u.p) == pytest.approx((chi2, p))


def test_interval_is_newcombes() -> None:
    # Newcombe (1998), table II, example (a): 56/70 - 48/80, method 10: .0524 to .3339.
    u = unpaired_difference(48, 80, 56, 70)
    assert (u.difference.low, u.difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    # Example (h): 10/10 - 0/10: .6075 to 1, where a plain interval has no width.
    u = unpaired_difference(0, 10, 10, 10)
    assert (u.difference.low, u.difference.high) == pytest.approx((0.6075, 1.0), abs=5e-5)
    assert unpaired_difference(0, 10, 0, 10).p == 1


def test_proportion_is_wilsons() -> None:
    interval = distributions.binomtest(437, 1594).proportion_ci(method="wilson")
    e = proportion(437, 1594)
    assert (e.low, e.high) == pytest.approx((interval.low, interval.high))
    assert proportion(437, 1594, deff=1.91).clusters == 835  # 1594 / 1.91
    assert proportion(437, 1594, deff=4).se == pytest.approx(2 * e.se)
    # With the design effect that clusters cause, it agrees with the clustered interval of the rows.
    y = np.repeat((np.random.default_rng(1).random(500) < 0.4).astype(float), 2)
    rows = clustered_mean(y, np.arange(1000) // 2)
    counts = proportion(int(y.sum()), 1000, deff=2)
    assert (counts.low, counts.high) == pytest.approx((rows.low, rows.high), abs=0.002)


def test_against_a_fixed_level() -> None:
    # 30 of 100 against .2: (.3 - .2) / sqrt(.2 * .8 / 100) = 2.5
    z, p = against_fixed(30, 100, 0.2)
    assert (z, p) == pytest.approx((2.5, 2 * distributions.norm.sf(2.5)))
    assert against_fixed(30, 100, 0.2, deff=6.25)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="level"):
        against_fixed(30, 100, 1.0)


def test_bad_counts() -> None:
    for arguments in ((3, 2, 1, 2), (1, 2, -1, 2), (0, 0, 1, 2)):
        with pytest.raises(ValueError, match="right"):
            unpaired_difference(*arguments)
    with pytest.raises(ValueError, match="deff"):
        unpaired_difference(1, 2, 1, 2, deff=0)
    assert math.isfinite(unpaired_difference(2, 2, 2, 2).z)

import math

import numpy as np
import pytest
from scipy import stats as distributions

from pandallm.stats.equivalence import equivalence
from pandallm.stats.intervals import Estimate, clustered_mean
from pandallm.stats.paired import paired_difference


def test_by_hand() -> None:
    # d = .01, se = .01, margin .03, 11 clusters: t = (.03 - .01) / .01 = 2 with 10 degrees of freedom; P(T > 2) = .0366940.
    e = equivalence(Estimate(0.01, math.nan, math.nan, 0.01, 100, 11), 0.03)
    assert e.p == pytest.approx(0.0366940, abs=1e-6)
    assert e.equivalent
    assert not equivalence(Estimate(0.01, math.nan, math.nan, 0.01, 100, 11), 0.03, alpha=0.03).equivalent
    # The sign does not matter, and at the margin itself p is one half.
    assert equivalence(Estimate(-0.01, math.nan, math.nan, 0.01, 100, 11), 0.03) == e
    assert equivalence(Estimate(0.03, math.nan, math.nan, 0.01, 100, 11), 0.03).p == pytest.approx(0.5)


def test_it_is_two_one_sided_t_tests() -> None:
    y = np.random.default_rng(1).normal(0.01, 0.1, 80)
    lower = distributions.ttest_1samp(y, -0.03, alternative="greater").pvalue
    upper = distributions.ttest_1samp(y, 0.03, alternative="less").pvalue
    assert equivalence(clustered_mean(y, bounds=None), 0.03).p == pytest.approx(max(lower, upper))


def test_equivalent_says_that_the_90_per_cent_interval_lies_within_the_margin() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(60):
        y, clusters = rng.normal(0.0, 0.12, 60), np.repeat(np.arange(30), 2)
        e = clustered_mean(y, clusters, confidence=0.9, bounds=None)
        inside = e.low > -0.03 and e.high < 0.03
        assert equivalence(e, 0.03).equivalent == inside
        seen.add(inside)
    assert seen == {True, False}


def test_systems_that_never_differ_need_enough_questions() -> None:
    # (1 - .02)^100 = .1326, (1 - .02)^200 = .0176
    few, many = (paired_difference([1, 0] * (n // 2), [1, 0] * (n // 2)).difference for n in (100, 200))
    assert equivalence(few, 0.02).p == pytest.approx(0.1326, abs=1e-4)
    assert not equivalence(few, 0.02).equivalent
    assert equivalence(many, 0.02).equivalent
    # Every question moved by the same: far outside of the margin, however small the error.
    assert equivalence(paired_difference([0] * 50, [1] * 50).difference, 0.02).p == 1


def test_nothing_known_is_not_equivalent() -> None:
    assert equivalence(paired_difference([1, 0], [1, 0], ["a", "a"]).difference, 0.5).p == 1
    with pytest.raises(ValueError, match="positive"):
        equivalence(Estimate(0, 0, 0, 0.1, 10, 10), 0)

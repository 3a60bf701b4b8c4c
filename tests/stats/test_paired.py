"""McNemar and the paired bootstrap; paired_difference and holm are tested in test_stats.py."""

import numpy as np
import pytest
from scipy import stats as distributions

from pandallm.stats.paired import McNemar, mcnemar, paired_bootstrap, paired_difference


def test_mcnemar_by_hand() -> None:
    # Only a is right once, only b five times: p = 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    a = [1, 0, 0, 0, 0, 0, 1, 0]
    b = [0, 1, 1, 1, 1, 1, 1, 0]
    assert mcnemar(a, b) == McNemar(1, 5, pytest.approx(14 / 64))
    assert mcnemar(b, a) == McNemar(5, 1, pytest.approx(14 / 64))
    assert mcnemar([1, 0], [1, 0]) == McNemar(0, 0, 1.0)
    assert mcnemar([True, False], [False, True]).p == 1  # 2 (1/4 + 2/4) = 3/2, cut to 1
    with pytest.raises(ValueError, match="right"):
        mcnemar([0.5], [1])
    with pytest.raises(ValueError, match="2 values"):
        mcnemar([1, 0], [1])


def test_mcnemar_is_the_binomial_test() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        a, b = rng.integers(0, 2, (2, 60))
        m = mcnemar(a, b)
        assert m.p == pytest.approx(distributions.binomtest(m.only_a, m.only_a + m.only_b).pvalue)


def test_without_clusters_the_sign_flip_agrees_with_mcnemar() -> None:
    # Eight questions differ, seven of them for b: both count the same 18 of 256 sign patterns.
    a, b = [1] + [0] * 7 + [1] * 4, [0] + [1] * 7 + [1] * 4
    assert paired_difference(a, b).p == pytest.approx(18 / 256)
    assert mcnemar(a, b).p == pytest.approx(18 / 256)


def test_paired_bootstrap_of_two_clusters_by_hand() -> None:
    # Cluster means 1 and 0 of equal size: resamples are 0, 1/2, 1 with weights 1/4, 1/2, 1/4; the 95 % limits are 0 and 1.
    e = paired_bootstrap([0, 0, 0, 0], [1, 1, 0, 0], list("aabb"), resamples=4000)
    assert (e.mean, e.low, e.high, e.clusters) == (0.5, 0.0, 1.0, 2)
    assert e.se == pytest.approx(np.sqrt(1 / 8), abs=0.01)  # variance 1/4 * 1/4 * 2
    assert paired_bootstrap([0, 0, 0, 0], [1, 1, 0, 0], list("aabb"), confidence=0.4, resamples=4000).low == 0.5


def test_paired_bootstrap_against_scipy_and_the_clustered_interval() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.random((2, 400)) < 0.5).astype(float)
    ours = paired_bootstrap(a, b, resamples=4000, seed=1)
    other = distributions.bootstrap((b - a,), np.mean, n_resamples=4000, method="percentile", rng=rng)
    assert (ours.low, ours.high) == pytest.approx(tuple(other.confidence_interval), abs=0.006)
    clusters = np.arange(400) // 4
    boot, t = paired_bootstrap(a, b, clusters, resamples=4000), paired_difference(a, b, clusters).difference
    assert (boot.low, boot.high) == pytest.approx((t.low, t.high), abs=0.01)
    assert boot == paired_bootstrap(a, b, clusters, resamples=4000)
    with pytest.raises(ValueError, match="of b"):
        paired_bootstrap([1.0], [1.0, 0.0])

import json
import math

import numpy as np
import pytest
from scipy import stats as distributions

from pandallm.stats.intervals import (
    as_json,
    best_constant,
    chance,
    cluster_bootstrap,
    clustered_mean,
    ratio_change,
    ratio_estimate,
)
from pandallm.stats.paired import holm, minimum_detectable_difference, paired_difference


def test_clustered_mean_by_hand() -> None:
    # Clusters a: 1, 1; b: 0, 0; c: 1, 0. Mean 1/2; cluster sums of residuals 1, -1, 0.
    # se^2 = 3/2 * (1 + 1 + 0) / 36 = 1/12; t(2, .975) = 4.302653; the interval is clipped to [0, 1].
    e = clustered_mean([1, 1, 0, 0, 1, 0], list("aabbcc"))
    assert (e.mean, e.n, e.clusters) == (0.5, 6, 3)
    assert e.se == pytest.approx(math.sqrt(1 / 12))
    assert (e.low, e.high) == (0, 1)
    free = clustered_mean([1, 1, 0, 0, 1, 0], list("aabbcc"), bounds=None)
    assert free.high == pytest.approx(0.5 + 4.302653 * math.sqrt(1 / 12), abs=1e-6)


def test_clusters_of_unequal_size_by_hand() -> None:
    # Clusters a: 1, 1, 1; b: 0. Mean 3/4; residual sums 3/4, -3/4; divided by 1 - 3/4 and 1 - 1/4 the squares are
    # 9/16 * 4 = 9/4 and 9/16 * 4/3 = 3/4; se^2 = 3 / 16. df = 16 / (9 + 1) - 1 = .6.
    e = clustered_mean([1, 1, 1, 0], list("aaab"), bounds=None)
    assert e.se == pytest.approx(math.sqrt(3 / 16))
    assert e.df == pytest.approx(0.6)
    assert e.high == pytest.approx(0.75 + distributions.t.ppf(0.975, 0.6) * math.sqrt(3 / 16))
    # One huge cluster and a tiny one know next to nothing.
    e = clustered_mean([1.0, 0.0] * 5000 + [1.0], [0] * 10_000 + [1])
    assert (e.low, e.high) == (0, 1)


def test_without_clusters_it_is_students_interval() -> None:
    y = np.array([0.2, 0.4, 0.9, 0.1, 0.5])
    e = clustered_mean(y, None, bounds=None)
    low, high = distributions.t.interval(0.95, 4, y.mean(), distributions.sem(y))
    assert (e.low, e.high) == pytest.approx((low, high))


def test_all_right_still_has_a_width_that_counts_clusters() -> None:
    many, few = clustered_mean([1.0] * 40), clustered_mean([1.0] * 40, [i // 10 for i in range(40)])
    assert many.high == few.high == 1
    assert few.low < many.low < 1
    t = distributions.t.ppf(0.975, 39)
    assert many.low == pytest.approx(40 / (40 + t * t))  # Wilson's lower bound at p = 1
    zero = clustered_mean([0.0] * 40)
    assert (zero.low, zero.high) == pytest.approx((0, 1 - many.low))
    constant = clustered_mean([0.5] * 10)
    assert constant.low < 0.5 < constant.high


def test_one_cluster_says_nothing() -> None:
    e = clustered_mean([1, 0, 1], ["a"] * 3)
    assert (e.low, e.high) == (0, 1)
    assert math.isnan(clustered_mean([1, 0], ["a"] * 2, bounds=None).low)
    with pytest.raises(ValueError, match="no values"):
        clustered_mean([])
    with pytest.raises(ValueError, match="clusters"):
        clustered_mean([1.0], ["a", "b"])


def clustered_sample(rng: np.random.Generator, groups: int, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Questions of passages that are all easy or all hard: correlation within a passage about one half."""
    sizes = rng.integers(1, 4, groups)
    level = rng.beta(p, 1 - p, groups)
    clusters = np.repeat(np.arange(groups), sizes)
    return (rng.random(clusters.size) < level[clusters]).astype(float), clusters


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    covered = naive = boot = 0
    for k in range(400):
        y, clusters = clustered_sample(rng, 60, 0.5)
        e = clustered_mean(y, clusters)
        covered += e.low <= 0.5 <= e.high
        independent = clustered_mean(y)
        naive += independent.low <= 0.5 <= independent.high
        if k < 150:
            b = cluster_bootstrap(y, None, clusters, resamples=200, seed=k)
            boot += b.low <= 0.5 <= b.high
    assert 0.92 <= covered / 400 <= 0.98
    assert naive / 400 < covered / 400  # what ignoring passages costs
    assert 0.87 <= boot / 150 <= 0.99


def test_paired_difference_by_hand() -> None:
    # Three questions improve, none worsens: 2 of the 8 sign patterns are as extreme.
    c = paired_difference([0, 0, 0, 1], [1, 1, 1, 1])
    assert c.difference.mean == 0.75
    assert c.p == pytest.approx(2 / 8)
    # The same three in one passage are one observation.
    assert paired_difference([0, 0, 0, 1], [1, 1, 1, 1], list("aaab")).p == 1
    back = paired_difference([1, 1, 1, 1], [0, 0, 0, 1])
    assert (back.difference.low, back.difference.high) == (-c.difference.high, -c.difference.low)


def test_equal_systems_give_p_one_and_a_width() -> None:
    c = paired_difference([1, 0] * 20, [1, 0] * 20)
    assert (c.difference.mean, c.p) == (0, 1)
    assert -0.15 < c.difference.low < 0 < c.difference.high < 0.15


def test_sign_flip_is_seeded_and_finds_what_is_there() -> None:
    rng = np.random.default_rng(1)
    a = (rng.random(300) < 0.4).astype(float)
    b = np.where(rng.random(300) < 0.3, 1.0, a)
    first = paired_difference(a, b)
    assert first.p < 0.001
    assert first == paired_difference(a, b)


def test_false_positives_under_the_null() -> None:
    rng = np.random.default_rng(3)
    clustered = naive = outside = 0
    runs = 400
    for _ in range(runs):
        y, clusters = clustered_sample(rng, 40, 0.5)
        # Both systems answer from the same distribution; passages move together.
        swap = rng.random(40)[clusters] < 0.5
        a, b = np.where(swap, y, 1 - y), np.where(swap, 1 - y, y)
        c = paired_difference(a, b, clusters, resamples=400)
        clustered += c.p < 0.05
        outside += not c.difference.low <= 0 <= c.difference.high
        naive += paired_difference(a, b, resamples=400).p < 0.05
    assert clustered / runs <= 0.08
    assert outside / runs <= 0.09
    assert naive / runs > 0.1


def test_ratio_by_hand() -> None:
    # R = 9/6; residuals 2 - 1.5 = .5, 4 - 4.5 = -.5 and 0, shares 1/6, 1/2, 1/3; .5 / (5/6) = .6, -.5 / (1/2) = -1;
    # se^2 = 2/3 * (.36 + 1) / 36; df = 1 / (1/36 + 1/4 + 1/9) - 1 = 11/7.
    e = ratio_estimate([2, 4, 3], [1, 3, 2])
    assert e.mean == 1.5
    assert e.se == pytest.approx(math.sqrt(2 / 3 * 1.36 / 36))
    assert e.high == pytest.approx(1.5 + distributions.t.ppf(0.975, 11 / 7) * e.se)
    # Equal denominators: the mean's interval. 2, 4, 3 over 1 each: Student's.
    same, mean = ratio_estimate([2, 4, 3], [1, 1, 1]), clustered_mean([2, 4, 3], bounds=None)
    assert (same.low, same.high) == pytest.approx((mean.low, mean.high))
    change = ratio_change([2, 4, 2], [1, 2, 1])
    assert (change.mean, change.low, change.high) == pytest.approx((-0.5, -0.5, -0.5))
    with pytest.raises(ValueError, match="positive"):
        ratio_estimate([1.0], [0.0])
    with pytest.raises(ValueError, match="more than one"):
        ratio_estimate([1.0, 2.0], [0.0, 3.0])


def test_ratio_interval_agrees_with_the_bootstrap_and_covers() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        size = rng.integers(50, 2000, 80).astype(float)
        bits = size * rng.normal(1.2, 0.2, 80)
        e = ratio_estimate(bits, size)
        covered += e.low <= 1.2 <= e.high
    assert 0.91 <= covered / 300 <= 0.99
    b = cluster_bootstrap(bits, size, seed=1)
    assert (b.low, b.high) == pytest.approx((e.low, e.high), abs=0.02)


def test_chance_constant_holm() -> None:
    assert chance([2, 4, 4]) == pytest.approx(1 / 3)
    assert best_constant([0, 1, 1, 2]) == (1, 0.5)
    assert best_constant([2, 0]) == (0, 0.5)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_minimum_detectable_difference_of_a_known_case() -> None:
    # (1.959964 + 0.841621) * se
    assert minimum_detectable_difference(0.01) == pytest.approx(0.02801585)


def test_json_has_no_nan() -> None:
    assert json.dumps([as_json(x) for x in (math.nan, math.inf, 0.25)], allow_nan=False) == "[null, null, 0.25]"


def test_a_ratio_that_one_document_decides_has_no_interval() -> None:
    # Shares .97, .01, .01, .01: 1 / (.97² + 3 * .01²) = 1.0624 effective documents.
    e = ratio_estimate([200.0, 1.0, 3.0, 2.0], [97.0, 1.0, 1.0, 1.0])
    assert e.df == pytest.approx(0.0624, abs=1e-3)
    assert math.isnan(e.low)
    assert math.isnan(e.high)
    assert e.mean == pytest.approx(2.06)

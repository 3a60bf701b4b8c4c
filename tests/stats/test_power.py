import math

import numpy as np
import pytest

from pandallm.stats.intervals import clustered_mean
from pandallm.stats.power import (
    design_effect,
    detectable_paired,
    detectable_unpaired,
    intraclass_correlation,
    plan_before,
)


def test_design_effect_by_hand() -> None:
    # sum m^2 / sum m = (9 + 1) / 4 = 2.5; 1 + .5 * 1.5 = 1.75
    assert design_effect([3, 1], 0.5) == pytest.approx(1.75)
    assert design_effect([4] * 7, 0.2) == pytest.approx(1 + 0.2 * 3)  # equal sizes: Kish's 1 + (m - 1) icc
    assert design_effect([1] * 9, 0.9) == 1
    for bad in ([], [1, 0]):
        with pytest.raises(ValueError, match="sizes"):
            design_effect(bad, 0.2)


def test_intraclass_correlation_by_hand() -> None:
    # Clusters 1, 1, 0 and 0, 0, 1; means 2/3 and 1/3, mean 1/2. MSB = 3 * (1/36 + 1/36) / 1 = 1/6;
    # MSW = (2/3 + 2/3) / 4 = 1/3; m0 = 3; (1/6 - 1/3) / (1/6 + 2/3) = -1/5.
    assert intraclass_correlation([1, 1, 0, 0, 0, 1], list("aaabbb")) == pytest.approx(-0.2)
    assert intraclass_correlation([1, 1, 0, 0], list("aabb")) == pytest.approx(1)
    # Unequal sizes 1 and 3: values 1 | 0, 0, 1: means 1 and 1/3, mean 1/2; MSB = 1/4 + 3/36 = 1/3; MSW = (2/3) / 2 = 1/3: 0.
    assert intraclass_correlation([1, 0, 0, 1], list("abbb")) == pytest.approx(0)
    for values, clusters in (([1, 0], "ab"), ([1, 0], "aa"), ([1, 1, 1, 1], "aabb")):
        assert math.isnan(intraclass_correlation(values, list(clusters)))


def test_the_correlation_and_the_design_effect_explain_the_clustered_error() -> None:
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 6, 3000)
    clusters = np.repeat(np.arange(3000), sizes)
    level = rng.beta(1.2, 1.8, 3000)  # mean .4, correlation 1 / (1 + 1.2 + 1.8) = .25
    y = (rng.random(clusters.size) < level[clusters]).astype(float)
    icc = intraclass_correlation(y, clusters)
    assert icc == pytest.approx(0.25, abs=0.03)
    ratio = (clustered_mean(y, clusters).se / clustered_mean(y).se) ** 2
    assert ratio == pytest.approx(design_effect(sizes.tolist(), icc), rel=0.05)


def test_detectable_by_hand() -> None:
    # 1.959964 + .841621 = 2.801585 standard errors.
    # C3-m, 2002 questions: sqrt(2 * 1/4 / 2002) = .0158035 -> 4.43 points; 20 % discordant: sqrt(.2 / 2002) = .0099950 -> 2.80.
    assert detectable_unpaired(2002, 0.5, 1.0) == pytest.approx(0.0442749, abs=1e-6)
    assert detectable_paired(2002, 0.2, 1.0) == pytest.approx(0.0280018, abs=1e-6)
    # LogiQA, 1594 questions: 5.0 and 3.1 points.
    assert round(100 * detectable_unpaired(1594, 0.5, 1.0), 1) == 5.0
    assert round(100 * detectable_paired(1594, 0.2, 1.0), 1) == 3.1
    # A design effect of 4 halves what n can tell.
    assert detectable_paired(2002, 0.2, 4.0) == pytest.approx(2 * 0.0280018, abs=1e-6)
    for arguments in ((0, 0.2, 1.0), (10, 1.2, 1.0), (10, 0.2, 0.0)):
        with pytest.raises(ValueError, match="need n"):
            detectable_paired(*arguments)


def test_the_promised_power_is_there() -> None:
    # 300 questions, 30 % answered differently: a difference of detectable size is found by the paired test in 80 % of tries.
    n, discordance = 300, 0.3
    d = detectable_paired(n, discordance, 1.0)
    rng = np.random.default_rng(8)
    moves = rng.choice(
        [1.0, -1.0, 0.0], size=(4000, n), p=[(discordance + d) / 2, (discordance - d) / 2, 1 - discordance]
    )
    z = moves.sum(axis=1) / np.sqrt((moves**2).sum(axis=1))
    assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.8, abs=0.025)


def test_plan_before() -> None:
    plan = plan_before(4, [3, 1], accuracy=0.5, icc=0.5, discordance=0.25)
    assert (plan["questions"], plan["passages"], plan["design_effect"]) == (4, 2, 1.75)
    assert plan["unpaired"] == pytest.approx(2.801585 * math.sqrt(0.5 * 1.75 / 4), rel=1e-6)
    assert plan["paired"] == pytest.approx(2.801585 * math.sqrt(0.25 * 1.75 / 4), rel=1e-6)
    assert plan["text"].startswith(
        "4 questions, 2 passages; smallest difference one can find: unpaired 131.0 points, paired"
    )
    # At the defaults the clusters and the accuracy count: C3-m has 5.1 and 3.3 points, not 4.4 and 2.8.
    sizes = [1] * 666 + [2] * 50 + [3] * 114 + [4] * 187 + [5] * 22 + [6] * 6
    c3m = plan_before(2002, sizes)
    assert (round(100 * c3m["unpaired"], 1), round(100 * c3m["paired"], 1)) == (5.1, 3.3)
    bare = plan_before(2002, sizes, accuracy=0.5, icc=0)
    assert (round(100 * bare["unpaired"], 1), round(100 * bare["paired"], 1)) == (4.4, 2.8)
    with pytest.raises(ValueError, match="hold 4"):
        plan_before(5, [3, 1])

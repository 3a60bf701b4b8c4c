"""Effects over seeds and questions: by hand, and how often they err under the null."""

import math

import numpy as np
import pytest
from scipy import stats

from pandallm.stats.seeds import SeedPair, seed_effect


def pair(a: list[float], b: list[float], clusters: list[int] | None = None) -> SeedPair:
    return SeedPair(np.array(a), np.array(b), tuple(clusters or range(len(a))))


def test_nested_seeds_are_a_paired_t_test_of_the_seeds() -> None:
    pairs = [pair([0, 0, 1, 1], [1, 0, 1, 1]), pair([0, 1, 0, 0], [1, 1, 1, 0]), pair([1, 1, 0, 1], [1, 1, 0, 1])]
    effect = seed_effect(pairs, crossed=False)
    assert effect.by_seed == (0.25, 0.5, 0.0)
    expected = stats.ttest_1samp([0.25, 0.5, 0.0], 0)
    assert effect.effect == pytest.approx(0.25)
    assert effect.p == pytest.approx(expected.pvalue, abs=1e-6)
    low, high = expected.confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((low, high))
    assert effect.p_above(1.0) == pytest.approx(
        stats.ttest_1samp([0.25, 0.5, 0.0], 1, alternative="less").pvalue, abs=1e-6
    )
    assert effect.p_below(0.0) == pytest.approx(expected.pvalue / 2, abs=1e-6)
    # As many seeds as were seen: (t(.975, 2) + t(.8, 2)) se.
    assert effect.detectable(3) == pytest.approx((stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)) * effect.se)


def test_a_ratio_by_hand() -> None:
    """bits 10 + 30 against 8 + 28: 36 / 40 - 1; by seed -.2 and -1/15."""
    effect = seed_effect([pair([10], [8]), pair([30], [28])], relative=True, crossed=False)
    assert effect.effect == pytest.approx(-0.1)
    assert effect.by_seed == pytest.approx((-0.2, -1 / 15))
    influence = np.array([8 - 0.9 * 10, 28 - 0.9 * 30]) / 40
    assert effect.se == pytest.approx(math.sqrt(2 * float(influence @ influence)))


def test_one_seed_speaks_of_its_questions_only() -> None:
    effect = seed_effect([pair([0, 0, 1, 1, 0], [1, 0, 1, 1, 1])])
    assert effect.seeds == 1
    assert effect.effect == pytest.approx(0.4)
    assert effect.se == pytest.approx(np.std([1, 0, 0, 0, 1], ddof=1) / math.sqrt(5))
    assert math.isnan(effect.detectable(5))


def test_equal_arms_and_nothing_at_all() -> None:
    same = seed_effect([pair([1, 0], [1, 0]), pair([0, 0], [0, 0])])
    assert (same.effect, same.p, same.low, same.high) == (0, 1, 0, 0)
    assert same.p_above(0.02) == same.p_below(-0.02) == pytest.approx(0.98**same.clusters)
    assert same.p_above(-0.02) == same.p_below(0.02) == 1
    alone = seed_effect([SeedPair(np.array([0.0]), np.array([0.0]), (0,))])
    assert alone.p_above(0.5) == 1, "one unit says nothing"
    with pytest.raises(ValueError):
        seed_effect([])
    with pytest.raises(ValueError):
        seed_effect([SeedPair(np.array([1.0]), np.array([1.0, 2.0]), (0,))])


def simulate(
    rng: np.random.Generator, seeds: int, clusters: int, spread: tuple[float, float, float], crossed: bool
) -> list[SeedPair]:
    """b - a of no effect, of which seeds, clusters (of three questions) and single answers each have a part."""
    by_cluster = rng.normal(0, spread[1], clusters)
    pairs = []
    for _ in range(seeds):
        if not crossed:
            by_cluster = rng.normal(0, spread[1], clusters)
        d = rng.normal(0, spread[0]) + np.repeat(by_cluster, 3) + rng.normal(0, spread[2], 3 * clusters)
        pairs.append(SeedPair(np.zeros(d.size), d, tuple(np.repeat(np.arange(clusters), 3).tolist())))
    return pairs


@pytest.mark.parametrize("crossed", [True, False])
@pytest.mark.parametrize("spread", [(0.05, 0.1, 0.4), (0.0, 0.2, 0.4), (0.1, 0.0, 0.4), (0.0, 0.0, 0.4)])
def test_five_seeds_err_in_about_five_percent(spread: tuple[float, float, float], crossed: bool) -> None:
    """800 studies without an effect: 2.5 standard errors of a share of .05 are .019. Too careful is allowed, too bold is not."""
    rng = np.random.default_rng(1)
    wrong = np.mean([seed_effect(simulate(rng, 5, 40, spread, crossed), crossed=crossed).p < 0.05 for _ in range(800)])
    assert wrong < 0.069
    if not crossed:
        assert wrong > 0.031


def test_an_effect_of_the_detectable_size_is_found_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(2)
    truth = seed_effect(simulate(rng, 2000, 40, (0.05, 0.1, 0.4), False), crossed=False).detectable(5)
    found = []
    for _ in range(400):
        pairs = [SeedPair(p.a, p.b + truth, p.clusters) for p in simulate(rng, 5, 40, (0.05, 0.1, 0.4), False)]
        found.append(seed_effect(pairs, crossed=False).p < 0.05)
    assert 0.74 < np.mean(found) < 0.88

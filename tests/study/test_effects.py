"""The arms of a comparison and their weights."""

import itertools

import numpy as np
import pytest

from pandallm.study.effects import least_squares, mean_of_pairs, pairs_of
from pandallm.study.grid import combinations
from tests.study.test_grid import spec

FACTORS = {"p": ["0", "1", "2"], "q": ["0", "1"]}
FULL = {f"{p}{q}": {"p": p, "q": q} for p, q in itertools.product("012", "01")}


def value(weights: dict[str, float], measured: dict[str, float]) -> float:
    return sum(w * measured[arm] for arm, w in weights.items())


def test_pairs_differ_in_nothing_else() -> None:
    assert pairs_of(FULL, {"p": "0"}, {"p": "2"}) == [("00", "20"), ("01", "21")]
    assert pairs_of(FULL, {"p": "0", "q": "0"}, {"p": "1", "q": "1"}) == [("00", "11")]
    sides = mean_of_pairs([("00", "20"), ("01", "21")])
    assert sides is not None
    assert (sides.a, sides.b, sides.count) == ({"00": 0.5, "01": 0.5}, {"20": 0.5, "21": 0.5}, 2)
    assert sides.arms == ["00", "01", "20", "21"]
    assert mean_of_pairs([]) is None


def test_a_full_grid_is_compared_as_its_pairs_are() -> None:
    """Also where factors interact: the measurements are drawn, no model made them."""
    measured = dict(zip(FULL, np.random.default_rng(3).random(6)))
    fitted = least_squares(FULL, FACTORS, {"p": "0"}, {"p": "2"})
    paired = mean_of_pairs(pairs_of(FULL, {"p": "0"}, {"p": "2"}))
    assert fitted is not None
    assert paired is not None
    for side in ("a", "b"):
        assert value(getattr(fitted, side), measured) == pytest.approx(value(getattr(paired, side), measured))


def test_a_fraction_gives_back_the_terms_that_made_its_measurements() -> None:
    """Nine of 2 x 2 x 2 x 3 x 3 arms: pairs that differ in one factor are few, the fit is exact."""
    study = spec({"a": 2, "b": 2, "c": 2, "d": 3, "e": 3}, {"kind": "fractional", "arms": 9})
    arms = {str(i): levels for i, levels in enumerate(combinations(study, ""))}
    factors = {name: list(f.levels) for name, f in study.factors.items()}
    terms = {(n, level): float(v) for (n, level), v in zip(((n, m) for n in factors for m in factors[n]), range(12))}
    measured = {name: 5 + sum(terms[pair] for pair in levels.items()) for name, levels in arms.items()}
    for n, m in terms:
        sides = least_squares(arms, factors, {n: factors[n][0]}, {n: m})
        assert sides is not None
        assert value(sides.b, measured) - value(sides.a, measured) == pytest.approx(
            terms[n, m] - terms[n, factors[n][0]]
        )
        others = sum(np.mean([terms[k, v] for v in factors[k]]) for k in factors if k != n)
        assert value(sides.b, measured) == pytest.approx(5 + terms[n, m] + others)


def test_what_arms_do_not_tell_apart_is_not_estimated() -> None:
    without = {name: levels for name, levels in FULL.items() if levels["p"] != "2"}
    assert least_squares(without, FACTORS, {"p": "0"}, {"p": "2"}) is None
    confounded = {"00": FULL["00"], "11": FULL["11"], "20": FULL["20"]}
    assert least_squares(confounded, FACTORS, {"p": "0"}, {"p": "1"}) is None

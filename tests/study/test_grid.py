"""Full, one-at-a-time and fractional grids."""

from typing import Any

import numpy as np
import pytest

from pandallm.errors import BadInput
from pandallm.study.grid import combinations
from pandallm.study.spec import StudySpec


def spec(levels: dict[str, int], grid: Any) -> StudySpec:
    factors = {n: {"field": "seed", "levels": list(range(k))} for n, k in levels.items()}
    return StudySpec.model_validate({"name": "x", "recipe": "microworld", "factors": factors, "grid": grid})


def test_full_and_one_at_a_time() -> None:
    full = combinations(spec({"a": 2, "b": 3}, "full"), "")
    assert [tuple(arm.values()) for arm in full] == [(a, b) for a in "01" for b in "012"]
    some = combinations(spec({"a": 2, "b": 3}, "one_at_a_time"), "")
    assert [tuple(arm.values()) for arm in some] == [("0", "0"), ("1", "0"), ("0", "1"), ("0", "2")]


def test_half_of_a_2_to_the_4_is_orthogonal() -> None:
    """The best 8 of 16 arms is the regular half fraction: each main effect is estimated as well as 8 arms can."""
    arms = combinations(spec(dict.fromkeys("abcd", 2), {"kind": "fractional", "arms": 8}), "")
    assert len(arms) == 8
    assert dict.fromkeys("abcd", "0") in arms
    x = np.array([[1.0, *(2.0 * int(v) - 1 for v in arm.values())] for arm in arms])
    assert np.allclose(x.T @ x, 8 * np.eye(5))


def test_a_third_of_a_3_to_the_3_shows_each_level_equally_often() -> None:
    arms = combinations(spec(dict.fromkeys("abc", 3), {"kind": "fractional", "arms": 9}), "")
    for n in "abc":
        assert sorted(arm[n] for arm in arms) == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert arms == combinations(spec(dict.fromkeys("abc", 3), {"kind": "fractional", "arms": 9}), "")


def test_too_few_arms_and_too_many() -> None:
    with pytest.raises(BadInput, match="at least 5 are needed"):
        combinations(spec(dict.fromkeys("abcd", 2), {"kind": "fractional", "arms": 4}), "")
    with pytest.raises(BadInput, match="16,384 arms"):
        combinations(spec({f"f{i}": 2 for i in range(14)}, "full"), "")
    with pytest.raises(BadInput, match="9 arms are asked for, the full grid has 4"):
        combinations(spec({"a": 2, "b": 2}, {"kind": "fractional", "arms": 9}), "")
    assert len(combinations(spec({"a": 2, "b": 2}, {"kind": "fractional", "arms": 4}), "")) == 4

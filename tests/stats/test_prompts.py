import math

import numpy as np
import pytest

from pandallm.stats.intervals import clustered_mean
from pandallm.stats.prompts import prompt_effect


def test_by_hand() -> None:
    # Prompts score 3/4 and 1/4: spread = sqrt(2 * (1/4)^2 / 1) = .353553, its share of the variance 1/8 / 2 = 1/16.
    # Question means 1, 1/2, 1/2, 0: residuals 1/2, 0, 0, -1/2; se^2 = 4/3 * (1/4 + 1/4) / 16 = 1/24.
    # se^2 = 1/16 + 1/24 = 5/48; t = (1/24 t(3) + 1/16 t(1)) / (5/48) = .4 t(3) + .6 t(1).
    e = prompt_effect([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert (e.mean, e.minimum, e.maximum, e.prompts) == (0.5, 0.25, 0.75, 2)
    assert e.spread == pytest.approx(0.353553, abs=1e-6)
    assert e.se_sampling == pytest.approx(math.sqrt(1 / 24))
    assert (e.low, e.high) == (0, 1)  # t = .4 * 3.18 + .6 * 12.7 = 8.9
    narrow = prompt_effect([[1, 1, 1, 0], [1, 0, 0, 0]], confidence=0.5)
    assert narrow.high == pytest.approx(0.5 + (0.4 * 0.764892 + 0.6 * 1) * math.sqrt(5 / 48), abs=1e-6)


def test_prompts_that_agree_leave_the_questions_error() -> None:
    y = [1, 0, 0, 1, 1, 1]
    e, one = prompt_effect([y, y, y], list("aabbcc")), clustered_mean(y, list("aabbcc"))
    assert (e.mean, e.low, e.high, e.se_sampling, e.spread) == (one.mean, one.low, one.high, one.se, 0)


def test_clusters_and_prompts_each_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random((1, 50)) < 0.5).astype(float).repeat(4, axis=1)  # four questions of a passage move together
    flip = rng.random((4, 200)) < np.array([[0.0], [0.1], [0.2], [0.3]])
    values = np.where(flip, 0.0, y)
    apart, together = prompt_effect(values), prompt_effect(values, np.arange(200) // 4)
    assert together.se_sampling > 1.5 * apart.se_sampling
    questions_only = clustered_mean(values.mean(axis=0), np.arange(200) // 4)
    assert together.high - together.low > questions_only.high - questions_only.low


def test_bad_input_and_one_passage() -> None:
    with pytest.raises(ValueError, match="two prompts"):
        prompt_effect([[1, 0]])
    with pytest.raises(ValueError, match="different numbers"):
        prompt_effect([[1, 0], [1]])
    with pytest.raises(ValueError, match="no values"):
        prompt_effect([[], []])
    one = prompt_effect([[1, 0], [1, 1]], ["a", "a"])
    assert (one.low, one.high) == (0, 1)
    assert math.isnan(one.se_sampling)

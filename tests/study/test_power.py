"""How many seeds a study needs, worked by hand."""

import math
from pathlib import Path

import pytest
from scipy import stats

from pandallm.errors import PandaError
from pandallm.pipeline.verify import compare
from pandallm.store import read_json
from pandallm.study.power import SEEDS
from pandallm.study.results import compute_results, write_results
from tests.study.fake import contrast, fake_study


def test_the_curve_is_student_t_times_the_spread_of_the_seeds(tmp_path: Path) -> None:
    """In a made-up world each seed asks of its own, so that all the spread shrinks with the seeds."""
    folder = fake_study(tmp_path, lambda level, seed: (0.5 if level == "low" else 0.6) + 0.01 * seed, lambda *_: 1.0)
    power = compute_results(folder)["power"]
    assert (power["metric"], power["margin"], power["seeds"]) == ("facts", 0.02, list(range(2, 21)))
    (curve,) = power["curves"]
    assert (curve["name"], curve["a"], curve["b"], curve["seeds"]) == ("more", {"dose": "low"}, {"dose": "high"}, 5)
    se = compute_results(folder)["contrasts"][0]["se"]
    for n in (2, 5, 20):
        reach = stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)
        assert curve["detectable"][n - 2] == pytest.approx(reach * se * math.sqrt(5 / n), rel=1e-3)
    assert curve["detectable"][3] == compute_results(folder)["contrasts"][0]["detectable"], (
        "what the claim says it finds"
    )
    enough = [n for n, d in zip(SEEDS, curve["detectable"]) if d <= 0.02]
    assert curve["enough"] == (enough[0] if enough else None)


def test_without_a_claim_on_the_primary_metric_the_effects_have_curves(tmp_path: Path) -> None:
    folder = fake_study(
        tmp_path,
        lambda level, seed: {"a": 0.4, "b": 0.5, "c": 0.6}[level],
        lambda level, seed: 1.0,
        levels=("a", "b", "c"),
        contrasts={"bits": contrast("a", "b", "same", "chinese")},
    )
    assert [c["name"] for c in compute_results(folder)["power"]["curves"]] == ["dose: b", "dose: c"]


def test_one_seed_and_seeds_that_do_not_differ_have_no_curve(tmp_path: Path) -> None:
    one = fake_study(tmp_path / "one", lambda *_: 0.5, lambda *_: 1.0, seeds=1)
    equal = fake_study(tmp_path / "equal", lambda *_: 0.5, lambda *_: 1.0)
    assert compute_results(one)["power"]["curves"] == []
    assert compute_results(equal)["power"]["curves"] == []


@pytest.mark.parametrize("place", ["power", "budgets", "mixes", "data"])
def test_a_changed_number_is_found(place: str, tmp_path: Path) -> None:
    folder = fake_study(tmp_path, lambda level, _: 0.5 if level == "low" else 0.6, lambda *_: 1.0, questions=40)
    write_results(folder)
    stored = read_json(folder / "results.json")
    compare(stored, compute_results(folder), "results.json")
    if place == "power":
        stored["power"]["curves"][0]["detectable"][5] += 0.001
    elif place == "budgets":
        stored["budgets"][0]["tokens"] += 1
    elif place == "mixes":
        stored["mixes"][0]["sources"]["news"]["share"] += 0.01
    else:
        stored["data"][0]["sources"]["wiki"]["kept"] -= 1
    with pytest.raises(PandaError, match=rf"results\.json\.{place}"):
        compare(stored, compute_results(folder), "results.json")

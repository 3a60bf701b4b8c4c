"""What a study's numbers say: verdicts, unfinished studies, arms of several factors."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pandallm.errors import BadInput
from pandallm.pipeline.run_folder import write_parquet
from pandallm.stats.paired import holm
from pandallm.store import read_json, write_json
from pandallm.study.results import compute_results
from tests.study.fake import contrast, fake_study


def accuracy(by_level: dict[str, float], spread: float = 0.0):
    return lambda level, seed: by_level[level] + spread * (seed - 3)


@pytest.mark.parametrize(
    ("high", "expect", "verdict"),
    [
        (0.60, "better", "reproduced"),  # .40 -> .60
        (0.60, "different", "reproduced"),
        (0.60, "worse", "refuted"),
        (0.60, "same", "refuted"),
        (0.20, "better", "refuted"),
        (0.402, "better", "refuted"),  # surely less than two points
        (0.402, "same", "reproduced"),
        (0.402, "different", "refuted"),
    ],
)
def test_verdicts_on_accuracy(high: float, expect: str, verdict: str, tmp_path: Path) -> None:
    folder = fake_study(
        tmp_path,
        accuracy({"low": 0.4, "high": high}),
        lambda level, seed: 1.0 + 0.001 * seed,
        contrasts={"c": contrast("low", "high", expect)},
        questions=2000,
    )
    (c,) = compute_results(folder)["contrasts"]
    assert c["effect"] == pytest.approx(high - 0.4, abs=0.02)
    assert c["verdict"] == verdict


@pytest.mark.parametrize(
    ("high", "expect", "verdict"),
    [
        (0.9, "better", "reproduced"),
        (0.9, "worse", "refuted"),
        (1.1, "worse", "reproduced"),
        (1.1, "better", "refuted"),
    ],
)
def test_fewer_bits_are_better(high: float, expect: str, verdict: str, tmp_path: Path) -> None:
    def bits(level: str, seed: int) -> float:
        return (high if level == "high" else 1.0) * (1 + 0.01 * seed) + 0.001 * (seed % 2 if level == "high" else 0)

    contrasts = {"c": contrast("low", "high", expect, "chinese")}
    folder = fake_study(tmp_path, accuracy({"low": 0.4, "high": 0.4}), bits, contrasts=contrasts)
    (c,) = compute_results(folder)["contrasts"]
    assert c["relative"] is True
    assert c["effect"] == pytest.approx(high - 1, abs=0.003)
    assert c["verdict"] == verdict


def test_too_little_to_say(tmp_path: Path) -> None:
    """Seeds that disagree, and a single seed, decide nothing."""

    def unsure(level: str, seed: int) -> float:
        return 0.5 + (0.1 * (-1) ** seed + 0.03 if level == "high" else 0.0)

    folder = fake_study(tmp_path / "spread", unsure, lambda level, seed: 1.0)
    assert compute_results(folder)["contrasts"][0]["verdict"] == "inconclusive"
    one = fake_study(tmp_path / "one", accuracy({"low": 0.2, "high": 0.8}), lambda level, seed: 1.0, seeds=1)
    (c,) = compute_results(one)["contrasts"]
    assert (c["verdict"], c["detectable"]) == ("inconclusive", None)
    assert c["p"] < 0.01, "one seed's questions differ clearly; another seed might not"


def test_beyond_the_margin_by_chance_does_not_refute_sameness(tmp_path: Path) -> None:
    """Three points with five seeds from one to five: surely not 0, not surely more than two points."""

    def right(level: str, seed: int) -> float:
        return 0.4 + (0.03 + 0.01 * (seed - 3) if level == "high" else 0.0)

    folder = fake_study(
        tmp_path, right, lambda *_: 1.0, contrasts={"c": contrast("low", "high", "same")}, questions=4000
    )
    (c,) = compute_results(folder)["contrasts"]
    assert (c["p"] < 0.05, c["effect"] > c["margin"], c["verdict"]) == (True, True, "inconclusive")


@pytest.mark.parametrize(("questions", "verdict"), [(40, "inconclusive"), (400, "reproduced")])
def test_equal_answers_to_few_questions_are_not_sameness(questions: int, verdict: str, tmp_path: Path) -> None:
    """Five seeds of 20 pairs leave .98^100 = .13 that none differs; of 200 pairs, nothing to speak of."""
    claims = {"c": contrast("low", "high", "same")}
    folder = fake_study(tmp_path, lambda *_: 0.5, lambda *_: 1.0, contrasts=claims, questions=questions)
    (c,) = compute_results(folder)["contrasts"]
    assert (c["effect"], c["verdict"]) == (0, verdict)


def test_holm_goes_over_the_claims_and_unfinished_seeds_stay_out(tmp_path: Path) -> None:
    levels = ("a", "b", "c")
    contrasts = {"ab": contrast("a", "b", "better"), "ac": contrast("a", "c", "better")}
    folder = fake_study(
        tmp_path,
        lambda level, seed: {"a": 0.4, "b": 0.45, "c": 0.5}[level] + 0.01 * (seed % 3) * (level != "a"),
        lambda level, seed: 1.0,
        levels=levels,
        contrasts=contrasts,
        failed=(("c", 2),),
    )
    results = compute_results(folder)
    ab, ac = results["contrasts"]
    assert [ab["p_holm"], ac["p_holm"]] == pytest.approx(holm([ab["p"], ac["p"]]), abs=3e-6)
    assert (ab["seeds"], ac["seeds"]) == ([1, 2, 3, 4, 5], [1, 3, 4, 5])
    assert results["runs"] == {"total": 15, "complete": 14, "failed": 1}
    assert results["arms"][2]["runs"][1] == {"seed": 2, "state": "failed", "error": "it broke", "seconds": 1.0}
    doses = {r["level"]: r for r in results["doses"] if r["metric"] == "facts"}
    assert list(doses["c"]["by_seed"]) == ["1", "3", "4", "5"]


def test_questions_that_all_seeds_share_are_a_second_sample(tmp_path: Path) -> None:
    """With the same questions in each seed, equal answers of all seeds still leave the questions' own chance."""
    made = [
        fake_study(
            tmp_path / str(own), accuracy({"low": 0.4, "high": 0.44}), lambda level, seed: 1.0, own_questions=own
        )
        for own in (True, False)
    ]
    own, shared = (compute_results(f)["contrasts"][0] for f in made)
    assert shared["se"] > 0.005
    assert shared["clusters"] == 100
    assert own["clusters"] == 500


def test_two_factors_compare_arms_that_differ_in_nothing_else(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, lambda level, seed: 0.5, lambda level, seed: 1.0, levels=("w", "x", "y", "z"))
    study = read_json(folder / "study.json")
    # The four arms become a 2 x 2 grid: p, q.
    grid = [{"p": "0", "q": "0"}, {"p": "0", "q": "1"}, {"p": "1", "q": "0"}, {"p": "1", "q": "1"}]
    for arm, levels in zip(study["arms"], grid):
        arm["levels"] = levels
    study["factors"] = {n: {"kind": "field", "levels": ["0", "1"], "baseline": "0"} for n in "pq"}
    study["contrasts"] = {
        "both": {**contrast("", "", "better"), "factor": None, "a": {"p": "0", "q": "0"}, "b": {"p": "1", "q": "1"}}
    }
    write_json(folder / "study.json", study)
    results = compute_results(folder)
    assert [(c["of"], c["of_planned"]) for c in results["contrasts"]] == [(1, 1)]
    facts = [e for e in results["effects"] if e["metric"] == "facts"]
    assert [(e["factor"], e["of"]) for e in facts] == [("p", 2), ("q", 2)]


def test_a_fraction_of_a_grid_rests_on_a_fit_to_all_arms(tmp_path: Path) -> None:
    """Four of the eight arms of 2 x 2 x 2: no two differ in one factor; each factor's own gain is found."""
    levels = ("000", "011", "101", "110")
    gains = (0.10, 0.20, 0.0)

    def right(level: str, seed: int) -> float:
        return 0.3 + 0.002 * seed + sum(g * int(v) for g, v in zip(gains, level))

    folder = fake_study(tmp_path, right, lambda *_: 1.0, levels=levels, contrasts={}, questions=4000)
    study = read_json(folder / "study.json")
    study["grid"] = "fractional"
    study["factors"] = {n: {"kind": "field", "levels": ["0", "1"], "baseline": "0"} for n in "pqr"}
    for arm, level in zip(study["arms"], levels):
        arm["levels"] = dict(zip("pqr", level))
    write_json(folder / "study.json", study)
    results = compute_results(folder)
    assert [c["effect"] for c in results["contrasts"]] == pytest.approx(gains, abs=0.02)
    assert [(c["by"], c["of"], c["of_planned"]) for c in results["contrasts"]] == [("least_squares", 4, 4)] * 3
    assert [c["verdict"] for c in results["contrasts"][:2]] == ["reproduced"] * 2


def test_prompts_are_told_one_by_one_where_there_are_several(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, accuracy({"low": 0.4, "high": 0.6}), lambda *_: 1.0, seeds=2)
    assert compute_results(folder)["prompts"] == []
    for run in (folder / "arms").glob("dose-high-*"):
        rows = pq.read_table(run / "rows.parquet").to_pylist()
        write_parquet(run / "rows.parquet", [*rows, *({**r, "prompt": "other", "correct": False} for r in rows)])
    (row,) = compute_results(folder)["prompts"]
    assert (row["metric"], row["arm"], list(row["prompts"])) == ("facts", "dose-high", ["plain", "other"])
    assert row["prompts"]["other"]["by_seed"] == {"1": 0.0, "2": 0.0}
    assert row["spread"] == row["prompts"]["plain"]["mean"] == pytest.approx(0.6, abs=0.1)


def test_means_and_intervals_by_hand(tmp_path: Path) -> None:
    values = {1: 0.9, 2: 1.0, 3: 1.1}
    folder = fake_study(tmp_path, lambda level, seed: 0.5, lambda level, seed: values[seed], seeds=3)
    arm = compute_results(folder)["arms"][0]["values"]["chinese"]
    assert arm["by_seed"] == {"1": 0.9, "2": 1.0, "3": 1.1}
    assert arm["mean"] == pytest.approx(1.0)
    assert arm["high"] - 1 == pytest.approx(4.302653 * np.std([0.9, 1.0, 1.1], ddof=1) / np.sqrt(3), abs=1e-5)
    rows = {(r["model"], r["language"]): r for r in compute_results(folder)["forgetting"] if r["arm"] == "dose-low"}
    assert rows["tuned", "zh"]["change"]["effect"] == pytest.approx(-0.5)
    assert rows["tuned", "en"]["change"]["effect"] == 0
    assert rows["base", "zh"]["change"] is None


def test_a_metric_that_an_arm_lacks_is_told(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, lambda level, seed: 0.5, lambda level, seed: 1.0)
    study = read_json(folder / "study.json")
    study["metrics"]["chinese"]["source"] = "news"
    study["contrasts"]["more"]["metric"] = "chinese"
    write_json(folder / "study.json", study)
    results = compute_results(folder)
    assert results["contrasts"][0]["effect"] is None
    assert "chinese: dose-low has no such model, question or text." in results["notes"]


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no study's folder"):
        compute_results(tmp_path)

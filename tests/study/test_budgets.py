"""What an arm read and cost, worked by hand from one run's files."""

from pathlib import Path

from pandallm.report.study import render_study
from pandallm.store import read_json, write_json
from pandallm.study.results import compute_results
from tests.study.fake import fake_study


def study(folder: Path, **more) -> Path:
    return fake_study(folder, lambda level, seed: 0.25 + 0.01 * seed, lambda *_: 1.0, questions=8, **more)


def test_budget_mix_and_data_of_the_first_finished_run(tmp_path: Path) -> None:
    results = compute_results(study(tmp_path, failed=(("low", 1),)))
    low, whole, high, _ = results["budgets"]
    assert (low["arm"], low["seed"], low["stage"], low["corpus"]) == ("dose-low", 2, "tuned", "chinese")
    assert (high["arm"], high["seed"]) == ("dose-high", 1)
    assert (low["steps"], low["tokens"], low["trained_tokens"], low["seconds"]) == (10, 1000, 900, 30.0)
    assert low["flops"] == 3.0e9, "6e9 were planned for 2,000 tokens; 1,000 were read"
    assert low["bytes"] == 1000 + 1000, "each source once"
    assert high["bytes"] == 1000 + 2 * 1000, "the second source twice"
    assert (low["epochs"], high["epochs"]) == (1.0, 1.5)
    assert (whole["stage"], whole["seconds"], whole["tokens"], whole["bytes"]) == (None, 60.0, 1000, 2000)
    assert [(m["stage"], m["arms"]) for m in results["mixes"]] == [("tuned", ["dose-low"]), ("tuned", ["dose-high"])]
    assert results["mixes"][1]["sources"]["news"] == {
        "exposures": 1000,
        "trained_exposures": 900,
        "passes": 2.0,
        "share": 0.666667,
        "wanted_share": 0.5,
    }
    assert results["mixes"][0]["sources"]["wiki"]["wanted_share"] is None
    (data,) = results["data"]
    assert (data["corpus"], data["arms"]) == ("chinese", ["dose-low", "dose-high"])
    assert data["sources"]["wiki"] == {
        "records": 30,
        "bytes": 3000,
        "kept": 10,
        "held_out": 10,
        "quarantined": 0,
        "dropped": {"duplicate": 10},
    }


def test_what_the_files_do_not_tell_is_none(tmp_path: Path) -> None:
    folder = study(tmp_path, seeds=2)
    for run in (folder / "arms").iterdir():
        (run / "recipe.yaml").unlink()
        manifest = read_json(run / "manifest.json")
        del manifest["stages"][1]["facts"]["predicted"]
        write_json(run / "manifest.json", manifest)
    line = compute_results(folder)["budgets"][0]
    assert (line["corpus"], line["bytes"], line["flops"], line["tokens"]) == (None, None, None, 1000)


def test_contamination_is_counted_per_corpus_and_task(tmp_path: Path) -> None:
    folder = study(tmp_path, seeds=1)
    found = {"questions": 8, "touched": 3, "documents": 2, "by_question": [], "exclude": ["q1", "q2"]}
    for arm, touched in (("low", 3), ("high", 0)):
        report = {"ngram_chars": 13, "action": "report", "tasks": {"facts": found | {"touched": touched}}}
        write_json(folder / "arms" / f"dose-{arm}-seed1" / "contamination" / "chinese.json", report)
    results = compute_results(folder)
    low, high = results["contamination"]
    assert (low["corpus"], low["arms"], low["ngram"], low["action"]) == ("chinese", ["dose-low"], 13, "report")
    assert low["tasks"] == {"facts": {"questions": 8, "touched": 3, "documents": 2, "exclude": 2}}
    assert high["tasks"]["facts"]["touched"] == 0
    page = render_study(results)
    assert "shares 13 characters in a row" in page
    assert '<th scope="row">facts</th><td class="num">8</td><td class="num">3</td>' in page


def test_nothing_finished_tells_nothing(tmp_path: Path) -> None:
    results = compute_results(study(tmp_path, seeds=1, failed=(("low", 1), ("high", 1))))
    assert (results["budgets"], results["mixes"], results["data"]) == ([], [], [])
    assert results["arms"][0]["floors"] == {"facts": None, "chinese": None}


def test_accuracies_stand_beside_what_they_are_held_against(tmp_path: Path) -> None:
    folder = study(tmp_path, seeds=2)
    floors = compute_results(folder)["arms"][0]["floors"]
    # Four options, and each of them is right as often.
    assert floors == {"facts": {"chance": 0.25, "constant": 0.25, "unparsed": 0.0}, "chinese": None}

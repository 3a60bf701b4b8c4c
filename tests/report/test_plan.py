"""The table of predicted against actual in a run's page."""

from pathlib import Path

from pandallm.report.write import write_report
from pandallm.store import write_json
from tests.report.example_run import write_example_run

ROW = {
    "stage": "pretrain",
    "predicted": {
        "steps": 4,
        "tokens": 1234567,
        "seconds": 100.0,
        "seconds_low": 90.0,
        "seconds_high": 110.0,
        "peak_memory_gib": 1.25,
    },
    "actual": {"steps": 4, "tokens": 1234567, "trained_tokens": 9, "seconds": 125.0, "peak_memory_gib": None},
    "ratio": {"tokens": 1.0, "seconds": 1.25},
    "within": False,
}


def test_the_page_shows_the_prediction_only_where_there_is_one(tmp_path: Path) -> None:
    write_example_run(tmp_path)
    without = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Predicted and actual" not in without
    write_json(tmp_path / "plan.json", {"stages": [ROW]})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Predicted and actual" in page
    assert "1.25 GiB" in page
    assert '<td class="num bad"><span data-l="en">2 min 5 s</span>' in page


def test_where_no_time_was_predicted_dashes_stand_and_nothing_is_judged(tmp_path: Path) -> None:
    write_example_run(tmp_path)
    predicted = {**ROW["predicted"], "seconds": None, "seconds_low": None, "seconds_high": None}  # type: ignore[dict-item]
    write_json(tmp_path / "plan.json", {"stages": [{**ROW, "predicted": predicted, "within": None}]})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert '<td class="range">–</td><td class="num"><span data-l="en">2 min 5 s</span>' in page

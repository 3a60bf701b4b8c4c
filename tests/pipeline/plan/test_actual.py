from pathlib import Path

from pandallm.pipeline.plan.actual import compared
from pandallm.store import write_jsonl

PREDICTED = {
    "steps": 4,
    "tokens": 100,
    "seconds": 10.0,
    "seconds_low": 8.0,
    "seconds_high": 12.5,
    "peak_memory_gib": 1.0,
}


def test_predicted_against_actual(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metrics" / "pretrain.jsonl", [{"step": i, "seconds": 3.0 * i} for i in range(1, 5)])
    facts = {"steps": 4, "tokens": 100, "trained_tokens": 90, "peak_memory_gib": 1.2, "predicted": PREDICTED}
    stages = [
        {"name": "pack pretrain", "kind": "pack", "facts": {}},
        {"name": "train pretrain", "kind": "train", "facts": facts},
        {"name": "train old", "kind": "train", "facts": {"steps": 4}},  # made before there were predictions
    ]
    (row,) = compared(stages, tmp_path)
    assert row["stage"] == "pretrain"
    assert row["actual"] == {"steps": 4, "tokens": 100, "trained_tokens": 90, "peak_memory_gib": 1.2, "seconds": 12.0}
    assert row["ratio"] == {"tokens": 1.0, "seconds": 1.2}
    assert row["within"]


def test_without_metrics_nothing_is_claimed(tmp_path: Path) -> None:
    facts = {"steps": 4, "tokens": 100, "predicted": PREDICTED}
    (row,) = compared([{"name": "train x", "kind": "train", "facts": facts}], tmp_path)
    assert row["actual"]["seconds"] is None
    assert not row["within"]

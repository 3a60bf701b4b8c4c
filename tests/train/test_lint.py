"""The linter of a stage's settings: each finding by a case that has it and a neighbour that has not."""

import subprocess
import sys
from typing import Any

import pytest

from pandallm.train.lint import lint_stage
from pandallm.train.spec import OptimizerSpec, TrainSpec

CLEAN: dict[str, Any] = {
    "steps": 1000,
    "rows": 8000,
    "ledger": {"total": {"unique": 5_000_000, "exposures": 5_000_000, "trained": 4_000_000}},
}


def codes(facts: dict[str, Any] | None = None, batch: int = 8, **optimizer: Any) -> list[str]:
    spec = TrainSpec(
        epochs=1, batch_sequences=batch, optimizer=OptimizerSpec(lr=1e-4, **({"warmup": 0.05} | optimizer))
    )
    return [f.code for f in lint_stage(spec, CLEAN | (facts or {}))]


def total(unique: int, exposures: int, trained: int) -> dict[str, Any]:
    return {"ledger": {"total": {"unique": unique, "exposures": exposures, "trained": trained}}}


def test_nothing_to_say_of_a_usual_stage() -> None:
    for schedule in ("linear", "cosine", "wsd", "constant"):
        assert codes(schedule=schedule) == []
    assert codes(final_lr_share=0.1, schedule="cosine", schedule_steps=1000) == []


def test_few_steps() -> None:
    assert codes({"steps": 99}) == ["few_steps"]
    assert codes({"steps": 100}) == []


@pytest.mark.parametrize(("warmup", "found"), [(0.1, []), (0.11, ["warmup"]), (100, []), (101, ["warmup"])])
def test_long_warmup_as_share_and_as_steps(warmup: float, found: list[str]) -> None:
    assert codes(warmup=warmup) == found


def test_warmup_is_the_one_of_the_schedule_that_is_really_used() -> None:
    # 5 % of a schedule for 20,000 steps are all steps of a stage of 1,000.
    assert codes(schedule_steps=20_000) == ["warmup", "final_lr"]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_final_rate_not_reached(schedule: str) -> None:
    assert codes(schedule=schedule, schedule_steps=1500) == ["final_lr"]
    assert codes(schedule=schedule, warmup=1000) == ["warmup", "final_lr"]


def test_schedule_of_another_length_that_still_ends_low() -> None:
    assert codes(schedule_steps=600) == ["schedule_steps"]
    assert codes(schedule="cosine", schedule_steps=1010) == ["schedule_steps"]


def test_a_batch_larger_than_the_corpus() -> None:
    assert codes({"rows": 7}) == ["large_batch"]
    assert codes({"rows": 8}) == []


def test_many_passes_and_passes_of_little_text() -> None:
    assert codes(total(5_000_000, 21_000_000, 5_000_000)) == ["passes"]
    assert codes(total(5_000_000, 20_000_000, 5_000_000)) == []
    assert codes(total(900_000, 1_900_000, 900_000)) == ["passes"]
    assert codes(total(900_000, 1_800_000, 900_000)) == []


def test_what_is_not_known_is_not_checked() -> None:
    spec = TrainSpec(epochs=9, batch_sequences=10**6, optimizer=OptimizerSpec(lr=1e-4))
    assert lint_stage(spec, {"steps": 500}) == []


def test_sentences_name_the_setting() -> None:
    spec = TrainSpec(epochs=1, optimizer=OptimizerSpec(lr=1e-4, warmup=5000))
    texts = [f.text for f in lint_stage(spec, CLEAN | {"steps": 1})]
    assert texts[0] == "only 1 step: give more text or epochs, or a smaller batch_sequences."
    assert all(t.endswith(".") for t in texts)


def test_does_without_torch() -> None:
    code = "import sys, pandallm.train.lint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

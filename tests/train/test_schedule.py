"""Schedules, by hand and against golden rates of transformers' schedulers."""

from pathlib import Path

import pytest

from pandallm.store import read_json
from pandallm.train.schedule import learning_rate, warmup_steps
from pandallm.train.spec import OptimizerSpec

GOLDEN = read_json(Path(__file__).parents[1] / "golden" / "learning_rates.json")


def rates(steps: int, **settings: object) -> list[float]:
    spec = OptimizerSpec.model_validate({"lr": 1.0, "warmup": 2, **settings})
    return [learning_rate(spec, s, steps) for s in range(steps)]


def test_by_hand() -> None:
    assert rates(6, schedule="linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates(6, schedule="linear", final_lr_share=0.2) == pytest.approx([0.5, 1, 1, 0.8, 0.6, 0.4])
    assert rates(4, schedule="cosine", warmup=0) == pytest.approx([1, 0.8535534, 0.5, 0.1464466])
    assert rates(4, schedule="constant", warmup=0) == [1, 1, 1, 1]
    assert rates(10, schedule="wsd", warmup=0, decay_share=0.4) == pytest.approx([1] * 7 + [0.75, 0.5, 0.25])


def test_warmup_as_share_and_as_steps() -> None:
    assert warmup_steps(OptimizerSpec(lr=1, warmup=0.1), 50) == 5
    assert warmup_steps(OptimizerSpec(lr=1, warmup=30), 50) == 30
    assert warmup_steps(OptimizerSpec(lr=1, warmup=30), 10) == 10
    assert rates(3, warmup=5) == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("case", sorted(GOLDEN["cases"]))
def test_the_rates_of_transformers_schedulers(case: str) -> None:
    """Step by step after warm-up; within it theirs is a step behind, as their first step has rate 0."""
    given, warm, steps = GOLDEN["cases"][case], GOLDEN["warmup"], GOLDEN["steps"]
    spec = OptimizerSpec.model_validate({"lr": GOLDEN["lr"], "warmup": warm, **given["ours"]})
    ours, theirs = [learning_rate(spec, s, steps) for s in range(steps)], given["rates"]
    assert len(theirs) == steps
    assert ours[warm:] == pytest.approx(theirs[warm:], rel=1e-12)
    assert ours[:warm] == pytest.approx(theirs[1 : warm + 1], rel=1e-12)


@pytest.mark.parametrize("case", sorted(GOLDEN["cases"]))
def test_the_golden_rates_are_transformers(case: str) -> None:
    import torch
    from transformers import get_scheduler

    given = GOLDEN["cases"][case]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=GOLDEN["lr"])
    theirs = get_scheduler(
        given["theirs"],
        optimizer,
        num_warmup_steps=GOLDEN["warmup"],
        num_training_steps=GOLDEN["steps"],
        scheduler_specific_kwargs=given["arguments"],
    )
    for rate in given["rates"]:
        assert theirs.get_last_lr()[0] == pytest.approx(rate, rel=1e-12)
        optimizer.step()
        theirs.step()


def test_a_schedule_made_for_another_length() -> None:
    longer = rates(10, schedule="linear")
    assert rates(6, schedule="linear", schedule_steps=10) == longer[:6]
    shorter = rates(8, schedule="linear", schedule_steps=4, final_lr_share=0.1)
    assert shorter == pytest.approx([0.5, 1, 1, 0.55, 0.1, 0.1, 0.1, 0.1])

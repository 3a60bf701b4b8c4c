import pytest

from pandallm.evaluate.published import (
    CHANCE,
    CONSTANT,
    PASSAGES,
    QUESTIONS,
    RIGHT,
    passage_sizes,
    published_accuracy,
)
from pandallm.stats.power import design_effect


@pytest.mark.parametrize(
    ("model", "percent"),
    [
        ("BELLE-LLaMA-Ext-7B", (26.41, 29.52, 28.87)),
        ("Linly-Chinese-LLaMA-7b-hf", (25.91, 32.28, 34.52)),
        ("Panda-7B", (27.41, 43.02, 43.66)),
        ("Panda-Instruct-7B, 3k steps", (26.22, 39.05, 42.11)),
        ("Panda-Instruct-7B, 6k steps", (30.30, 47.14, 56.94)),
        ("Panda-Instruct-7B, 9k steps", (31.93, 47.30, 57.04)),
        ("Panda-13B", (24.72, 47.94, 49.71)),
    ],
)
def test_counts_give_the_printed_percentages(model: str, percent: tuple[float, float, float]) -> None:
    # The paper cuts some figures and rounds others, hence a whole unit of the last digit.
    assert [100 * published_accuracy(model, t) for t in QUESTIONS] == pytest.approx(percent, abs=0.01)
    assert len(RIGHT) == 7


def test_passages_have_the_published_totals() -> None:
    for task, questions in QUESTIONS.items():
        sizes = passage_sizes(task)
        assert (len(sizes), sum(sizes)) == (PASSAGES[task], questions)
    # The design effects known of C3-m: 1.36 at correlation .2, 1.91 at .5.
    assert [round(design_effect(passage_sizes("c3-m"), icc), 2) for icc in (0.2, 0.5)] == [1.36, 1.91]


def test_the_constant_answers_and_chance() -> None:
    percent = [100 * CONSTANT[t][1] / QUESTIONS[t] for t in QUESTIONS]
    assert percent == pytest.approx([26.41, 29.58, 27.82], abs=0.005)
    # Mean number of options m to two places: k = 4 - m of the questions have 3 options, or k/2 have 2.
    for task, mean in (("c3-d", 3.81), ("c3-m", 3.75)):
        fewest, most = 4 - (mean + 0.005), 4 - (mean - 0.005)
        low, high = fewest / 3 + (1 - fewest) / 4, most / 2 / 2 + (1 - most / 2) / 4
        assert CHANCE[task] == pytest.approx((low, high), abs=1e-4)

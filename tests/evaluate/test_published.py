import pytest

from pandallm.evaluate.published import QUESTIONS, RIGHT, published_accuracy


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

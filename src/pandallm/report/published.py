"""What the 2023 paper published on a task, to stand beside a run's scores."""

from typing import Any

from pandallm.evaluate.published import CONSTANT, QUESTIONS, RIGHT, published_accuracy


def published_of(task: str, asked: int | None) -> dict[str, Any] | None:
    """{"n" (questions of the paper's test set), "same" (as many were asked here), "models": [(name, accuracy)], "constant": (letter,
    accuracy)}; None for a task that the paper does not have. Unpaired tests against these counts: `panda compare --published`."""
    if task not in QUESTIONS:
        return None
    letter, right = CONSTANT[task]
    return {
        "n": QUESTIONS[task],
        "same": asked == QUESTIONS[task],
        "models": [(model, published_accuracy(model, task)) for model in RIGHT],
        "constant": (letter, right / QUESTIONS[task]),
    }

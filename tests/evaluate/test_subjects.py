from typing import Any

import pytest

from pandallm.evaluate.compare import compare_models
from pandallm.evaluate.compare_align import ScoredModel
from pandallm.evaluate.spec import CompareSpec, EvaluateSpec
from pandallm.evaluate.subjects import as_whole, with_whole
from pandallm.evaluate.summary import summarize
from pandallm.tasks.types import Question
from tests.evaluate.test_summary import QUESTIONS, TASK, row

EXAM = TASK.model_copy(update={"subjects": True})
#: Two subjects: ten questions of history, all right; ten of physics, half right.
ASKED = [
    Question(q.id, q.task, q.cluster, "", "?", q.options, q.answer, "history" if i < 10 else "physics")
    for i, q in enumerate(QUESTIONS)
]


def rows(model: str = "base") -> list[dict[str, Any]]:
    return [row(model, "p", q, i < 15) for i, q in enumerate(ASKED)]


def test_the_table_has_the_whole_and_its_subjects() -> None:
    spec = EvaluateSpec.model_validate({"models": ["base", "tuned"], "tasks": ["t"]})
    scores = summarize(rows() + rows("tuned"), [], ASKED, [EXAM], spec)
    table = {(r["model"], r["group"]): (r["n"], r["accuracy"]) for r in scores["table"]}
    assert table["base", ""] == (20, 0.75)
    assert table["base", "history"] == (10, 1.0)
    assert table["base", "physics"] == (10, 0.5)
    assert len(table) == len(scores["table"]) == 6
    assert [(d["what"], d["difference"]) for d in scores["differences"]] == [("t", 0.0)]
    for part in ("normalizations", "prompts", "letters", "orders"):
        assert {r["group"] for r in scores[part]} <= {""}


def test_groups_that_are_no_subjects_stay_apart() -> None:
    spec = EvaluateSpec.model_validate({"models": ["base"], "tasks": ["t"]})
    scores = summarize(rows(), [], ASKED, [TASK], spec)
    assert [r["group"] for r in scores["table"]] == ["history", "physics"]
    assert with_whole(rows(), {"t": TASK}) == as_whole(rows(), {"t": TASK}) == rows()
    assert as_whole(rows(), {}) == rows()


def test_compare_takes_the_whole() -> None:
    models = [ScoredModel(n, rows(n), [EXAM]) for n in ("base", "tuned")]
    (cell,) = compare_models(models, CompareSpec())["cells"]
    assert (cell["group"], cell["n"]) == ("", 20)
    assert cell["scores"][0]["accuracy"] == pytest.approx(0.75)

"""Runs side by side, from rows worked by hand and against the scores of one run."""

from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.evaluate.compare_align import ScoredModel
from pandallm.evaluate.compare_runs import compare_bits, compare_questions, headline_levels, side_by_side
from pandallm.evaluate.sections import complete
from pandallm.evaluate.spec import CompareSpec, EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question
from tests.evaluate.compare_example import TASK, question, rows_of

TASKS = [TaskSpec.model_validate(TASK | {"name": name}) for name in ("one", "two")]
#: Both tasks have questions and passages of the same names; the first has more.
QUESTIONS = [*(question(i, "one") for i in range(24)), *(question(i, "two") for i in range(10))]
RIGHT = {"base": lambda i, p: i % 3 == 0, "tuned": lambda i, p: i % 4 != 1 or p == "letter"}
SPEC = EvaluateSpec.model_validate(
    {"models": list(RIGHT), "tasks": ["one", "two"], "headline": {"tasks": ["one", "two"], "prompts": "all"}}
)


def model(name: str, questions: list[dict[str, Any]] = QUESTIONS) -> ScoredModel:
    return ScoredModel(name, rows_of(name, questions, RIGHT[name]), TASKS, {(q["task"], q["id"]): q for q in questions})


def settings(**more: Any) -> CompareSpec:
    return CompareSpec(baseline="base", common=True, **more)


def test_a_difference_of_headlines_is_the_one_that_scores_have_of_two_models_of_one_run() -> None:
    rows = complete([r for name in RIGHT for r in model(name).rows])
    for r in rows:  # what a run's rows hold besides
        r["near_tie"] = False
    asked = [Question(**{**q, "options": tuple(q["options"])}) for q in QUESTIONS]
    scores = summarize(rows, [], asked, TASKS, SPEC)
    cell, comparison, apart = compare_questions([model("base"), model("tuned")], SPEC, settings())
    assert apart == []
    assert cell is not None
    assert comparison is not None
    assert len(comparison["cells"]) == 2
    (pair,) = cell["pairs"]
    expected = scores["differences"][0]
    assert expected["what"] == "headline"
    for field in ("difference", "low", "high"):
        assert pair[field] == expected[field]
    assert pair["p"] == pytest.approx(expected["p"], abs=0.02)
    assert pair["p_holm"] == pair["p"]
    assert (cell["n"], cell["clusters"]) == (expected["n"], expected["clusters"]) == (34, 17)
    assert [(s["model"], s["accuracy"], s["low"]) for s in cell["scores"]] == [
        (name, scores["headline"][name]["accuracy"], scores["headline"][name]["low"]) for name in RIGHT
    ]


def test_a_headline_takes_its_prompts_group_and_method_alone() -> None:
    wanted = {"tasks": ["one"], "prompts": ["text"], "group": "dev"}
    spec = EvaluateSpec.model_validate(SPEC.model_dump() | {"headline": wanted})
    cell = compare_questions([model("base"), model("tuned")], spec, settings())[0]
    assert cell is not None
    assert (cell["prompts"], cell["n"]) == (["text"], 24)
    assert [s["accuracy"] for s in cell["scores"]] == [pytest.approx(8 / 24, abs=1e-6), 18 / 24]
    for change in ({"group": "test"}, {"method": "generation"}):
        spec = EvaluateSpec.model_validate(SPEC.model_dump() | {"headline": wanted | change})
        cell, comparison, _ = compare_questions([model("base"), model("tuned")], spec, settings())
        assert cell is None
        assert comparison is not None


def test_guessing_and_the_constant_answer_are_those_of_the_headlines_questions() -> None:
    wanted = EvaluateSpec.model_validate(SPEC.model_dump() | {"headline": {"tasks": ["two"]}})
    assert headline_levels(model("base"), "base", wanted) == {"chance": 0.25, "constant": 0.3}
    assert headline_levels(model("base"), "base", EvaluateSpec()) is None
    with pytest.raises(BadInput, match="model 'other' has no likelihood rows"):
        headline_levels(model("base"), "other", wanted)


def bit(identity: str, bits: float, size: int = 100, **more: Any) -> dict[str, Any]:
    row = {"corpus": "c", "source": "s", "language": "zh", "id": identity, "bits": bits, "bytes": size}
    return row | more


def test_bits_are_each_runs_own_and_changes_those_of_shared_documents() -> None:
    first = [bit("a", 100.0), bit("b", 200.0), bit("x", 999.0), bit("e", 50.0, language="en", source="t")]
    second = [bit("a", 50.0), bit("b", 100.0), bit("x", 10.0, size=90), bit("new", 400.0)]
    lines = compare_bits([first, second, []], 0.95)
    assert [(n["corpus"], n["source"], n["language"]) for n in lines] == [
        ("c", "s", "zh"),
        ("all", "all", "zh"),
        ("c", "t", "en"),
        ("all", "all", "en"),
    ]
    zh = lines[1]
    assert [s and s["bits_per_byte"] for s in zh["scores"]] == [4.33, pytest.approx(560 / 390, abs=1e-6), None]
    assert zh["changes"][0] is None
    # `x` is another text under the same name: it has another length.
    assert (zh["changes"][1]["change"], zh["changes"][1]["documents"]) == (-0.5, 2)
    assert zh["changes"][2] is None
    assert lines[3]["scores"][1] is None
    assert lines[3]["changes"] == [None, None, None]


def test_lines_of_score_tables_meet_by_what_they_are_of() -> None:
    line = {"task": "t", "title": "T", "group": "", "prompt": "p", "method": "likelihood", "accuracy": 0.5}
    other = line | {"prompt": "q", "accuracy": 0.7}
    later = line | {"task": "u", "title": "", "shots": 5}
    found = side_by_side([[line, later], [other, line | {"shots": 0, "accuracy": 0.6}]])
    assert [(f["title"], f["prompt"], f["shots"]) for f in found] == [("T", "p", 0), ("T", "q", 0), ("u", "p", 5)]
    assert [[s and s["accuracy"] for s in f["scores"]] for f in found] == [[0.5, 0.6], [None, 0.7], [0.5, None]]

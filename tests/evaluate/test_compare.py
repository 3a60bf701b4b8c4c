"""Comparisons worked by hand, and what must be refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.evaluate.compare import compare_models
from pandallm.evaluate.compare_align import ScoredModel
from pandallm.evaluate.compare_published import measured_design_effect
from pandallm.evaluate.spec import CompareSpec
from pandallm.stats.paired import holm, paired_difference
from pandallm.stats.unpaired import unpaired_difference
from pandallm.tasks.spec import TaskSpec
from tests.evaluate.compare_example import TASK, question, rows_of

Right = Callable[[int, str], bool]


def model(name: str, right: Right, n: int = 40, **more: Any) -> ScoredModel:
    questions = [question(i) for i in range(n)]
    rows = rows_of(name, questions, right, more.pop("prompts", ("text", "letter")))
    texts = {(q["task"], q["id"]): q for q in questions}
    return ScoredModel(
        **({"name": name, "rows": rows, "tasks": [TaskSpec.model_validate(TASK)], "questions": texts} | more)
    )


def all_right(i: int, prompt: str) -> bool:
    return True


def half(i: int, prompt: str) -> bool:
    return i % 2 == 0


def test_one_pair_worked_by_hand() -> None:
    # 8 questions in 4 passages. a: right on even ones under both prompts. b: right on all under `text`, on 0 .. 3 under `letter`.
    a = model("a", half, 8)
    b = model("b", lambda i, prompt: prompt == "text" or i < 4, 8)
    result = compare_models([a, b], CompareSpec())
    (cell,) = result["cells"]
    assert (cell["n"], cell["clusters"], cell["chance"], cell["prompts"]) == (8, 4, 0.25, ["text", "letter"])
    assert cell["constant"] == {"answer": 0, "accuracy": 0.25}
    assert [s["accuracy"] for s in cell["scores"]] == [0.5, 0.75]
    assert {(s["prompt"], s["model"]): s["accuracy"] for s in cell["by_prompt"]} == {
        ("text", "a"): 0.5,
        ("text", "b"): 1.0,
        ("letter", "a"): 0.5,
        ("letter", "b"): 0.5,
    }
    (pair,) = cell["pairs"]
    # Per question, b - a: 0, 1, 0, 1 and then -1/2, 1/2, -1/2, 1/2: passages add up to 1, 1, 0, 0.
    assert pair["difference"] == 0.25
    assert pair["p"] == 0.5  # (1, 1): 2 of the 4 sign patterns reach |2|
    assert pair["disagree"] == 6  # 1 and 3 under both prompts, 5 and 7 under `text`, 4 and 6 under `letter`
    assert [d["mcnemar"] for d in pair["by_prompt"]] == [
        {"only_a": 0, "only_b": 4, "p": 0.125},
        {"only_a": 2, "only_b": 2, "p": 1.0},
    ]
    assert pair["verdict"] == "undecided"
    assert result["family"] == 1


def test_disagreement_is_about_choices_not_about_being_right() -> None:
    a = model("a", lambda i, _: False, 8)
    b = model("b", lambda i, _: False, 8)
    for r in b.rows:
        if r["id"] == "q3":
            r["choice"] = (r["answer"] + 2) % 4  # wrong as well, but another option
    (pair,) = compare_models([a, b], CompareSpec())["cells"][0]["pairs"]
    assert (pair["disagree"], pair["difference"], pair["p"]) == (1, 0.0, 1.0)


def test_verdicts_read_from_b_and_groups_best_first() -> None:
    models = [
        model("a", half, 60),
        model("b", lambda i, _: i % 12 != 5, 60),
        model("c", lambda i, _: half(i, "") != (i == 4), 60),
    ]
    cell = compare_models(models, CompareSpec())["cells"][0]
    assert {(p["a"], p["b"]): p["verdict"] for p in cell["pairs"]} == {
        ("a", "b"): "better",
        ("a", "c"): "undecided",
        ("b", "c"): "worse",
    }
    assert cell["groups"] == [["b"], ["a", "c"]]
    undecided = cell["pairs"][1]
    assert (
        undecided["words"]
        == f"no difference found (smallest difference this could find: {100 * undecided['detectable']:.1f} points)"
    )
    # One question of 60 moved, in one of 30 passages: se² = 30/29 ((58/60)² + 29 (2/60)²) / 60² = 1/60², times 1.96 + 0.84.
    assert undecided["detectable"] == pytest.approx(2.8016 / 60, rel=1e-3)


def test_equivalence_needs_enough_questions_and_may_stand_beside_better() -> None:
    few, many = (
        compare_models([model("a", half, n), model("b", lambda i, _: half(i, "") or i == 1, n)], CompareSpec())[
            "cells"
        ][0]["pairs"][0]
        for n in (20, 600)
    )
    assert (few["verdict"], few["equivalent"]) == ("undecided", False)
    assert (many["verdict"], many["equivalent"], many["words"]) == ("equivalent", True, "equivalent within ±2 points")
    small = compare_models(
        [model("a", half, 2000), model("b", lambda i, _: half(i, "") or i % 100 == 1, 2000)], CompareSpec()
    )["cells"][0]["pairs"][0]
    assert (small["difference"], small["verdict"], small["words"]) == (0.01, "better", "better, within ±2 points")


def test_one_passage_tells_nothing() -> None:
    def one(m: ScoredModel) -> ScoredModel:
        for r in m.rows:
            r["cluster"] = "only"
        return m

    (pair,) = compare_models([one(model("a", half)), one(model("b", all_right))], CompareSpec())["cells"][0]["pairs"]
    assert (pair["verdict"], pair["detectable"]) == ("undecided", None)
    assert pair["words"].startswith("no difference found (one passage")


def test_holm_goes_over_all_tasks_and_pairs() -> None:
    other = {**TASK, "name": "other-zh"}
    models = []
    for name, right in (("a", half), ("b", lambda i, _: i % 5 < 3), ("c", lambda i, _: i % 3 > 0)):
        m = model(name, right, 30)
        more = rows_of(name, [question(i, "other-zh") for i in range(30)], lambda i, p, r=right: r(i + 1, p))
        models.append(ScoredModel(name, [*m.rows, *more], [*m.tasks, TaskSpec.model_validate(other)]))
    result = compare_models(models, CompareSpec())
    pairs = [p for c in result["cells"] for p in c["pairs"]]
    assert result["family"] == len(pairs) == 6
    assert [p["p_holm"] for p in pairs] == pytest.approx(holm([p["p"] for p in pairs]), abs=1e-6)
    assert [c["task"] for c in compare_models(models, CompareSpec(tasks=("other-zh",)))["cells"]] == ["other-zh"]
    with pytest.raises(BadInput, match="no rows of task 'missing-zh'; the folders hold other-zh, shop-zh"):
        compare_models(models, CompareSpec(tasks=("missing-zh",)))


def test_a_baseline_is_compared_with_each() -> None:
    models = [model("a", half), model("b", all_right), model("c", half)]
    cell = compare_models(models, CompareSpec(baseline="b"))["cells"][0]
    assert [(p["a"], p["b"]) for p in cell["pairs"]] == [("b", "a"), ("b", "c")]
    assert cell["groups"] is None
    with pytest.raises(BadInput, match=r"'bb' is none of the models\. Did you mean 'b'\?"):
        compare_models(models, CompareSpec(baseline="bb"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=24))
def test_turning_the_pair_round_turns_the_sign_and_nothing_else(answers: list[tuple[bool, bool]]) -> None:
    a, b = (model(n, lambda i, _, k=k: answers[i][k], len(answers)) for k, n in enumerate("ab"))
    one, other = (compare_models(m, CompareSpec())["cells"][0]["pairs"][0] for m in ([a, b], [b, a]))
    assert one["difference"] == -other["difference"]
    assert (one["p"], one["equivalence_p"], one["disagree"]) == (other["p"], other["equivalence_p"], other["disagree"])
    turned = {"better": "worse", "worse": "better"}
    assert one["verdict"] == turned.get(other["verdict"], other["verdict"])
    expected = paired_difference(
        [float(x) for x, _ in answers], [float(y) for _, y in answers], [i // 2 for i in range(len(answers))]
    )
    assert one["difference"] == pytest.approx(expected.difference.mean, abs=1e-6)


def changed(m: ScoredModel, **more: Any) -> ScoredModel:
    return ScoredModel(
        **({"name": m.name, "rows": m.rows, "tasks": m.tasks, "questions": m.questions, "rules": m.rules} | more)
    )


def task(**more: Any) -> list[TaskSpec]:
    return [TaskSpec.model_validate({**copy.deepcopy(TASK), **more})]


def other_prompt() -> list[TaskSpec]:
    described = copy.deepcopy(TASK)
    described["prompts"]["text"]["template"] += "："
    return [TaskSpec.model_validate(described)]


def other_text(m: ScoredModel) -> dict[Any, Any]:
    return {k: {**q, "question": q["question"] + "？"} if q["id"] == "q5" else q for k, q in m.questions.items()}


BAD: list[tuple[Callable[[ScoredModel], ScoredModel], str, int | None]] = [
    (lambda m: changed(m, rows=[r for r in m.rows if r["id"] not in ("q3", "q4")]), "different questions (2 only by a, 0 only by b); compare them on the 38", 38),
    (lambda m: changed(m, questions=other_text(m)), "1 questions have the same id but another text or answer, first 'q5'", 39),
    (lambda m: changed(m, tasks=task(version=2)), "a was scored on version 1, b on version 2", None),
    (lambda m: changed(m, tasks=task(where={"type": "m"})), "another `where` of the task", None),
    (lambda m: changed(m, tasks=other_prompt()), "the prompt is not the same text for a and b", 40),
    (lambda m: changed(m, tasks=[]), "tasks.json of b does not describe it", None),
    (lambda m: changed(m, rows=[r for r in m.rows if r["prompt"] == "text"]), "b was not scored on shop-zh (group dev, prompt letter, likelihood)", 40),
    (lambda m: changed(m, rows=[{**r, "chat": True} for r in m.rows]), "b was not scored on shop-zh (group dev, prompt text, likelihood)", None),
    (lambda m: changed(m, rows=[{**r, "task": "c3-m"} for r in m.rows]), "b was not scored on shop-zh;", None),
    (lambda m: changed(m, rows=[{**r, "answer": 0, "correct": r["choice"] == 0} for r in m.rows]), "another text or answer", 10),
    (lambda m: changed(m, rules={"likelihood": "normalize: bytes"}), "a was scored with normalize: sum, b with normalize: bytes", None),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence", "common"), BAD)
def test_what_was_not_scored_alike_is_refused_or_left_out(
    change: Callable[[ScoredModel], ScoredModel], sentence: str, common: int | None
) -> None:
    a = changed(model("a", half), rules={"likelihood": "normalize: sum"})
    b = change(changed(model("b", all_right), rules={"likelihood": "normalize: sum"}))
    with pytest.raises(BadInput) as e:
        compare_models([a, b], CompareSpec())
    assert sentence in str(e.value)
    assert "--common" in str(e.value)
    assert str(e.value).endswith(".")
    if common is None:
        with pytest.raises(BadInput, match="no question in common"):
            compare_models([a, b], CompareSpec(common=True))
        return
    result = compare_models([a, b], CompareSpec(common=True))
    assert [c["n"] for c in result["cells"]] == [common]
    assert sentence.split(";")[0] in " ".join(result["left_out"])


def test_another_split_is_refused_an_unnamed_one_is_not() -> None:
    a = changed(model("a", half), tasks=task(split="dev"))
    with pytest.raises(BadInput, match="a was scored on split dev, b on test"):
        compare_models([a, changed(model("b", all_right), tasks=task(split="test"))], CompareSpec())
    assert compare_models([a, model("b", all_right)], CompareSpec())["cells"][0]["n"] == 40


def test_rotated_orders_stay_out_and_a_row_twice_is_refused() -> None:
    a, b = model("a", half), model("b", all_right)
    plain = compare_models([a, b], CompareSpec())
    rotated = [{**r, "order": 1, "correct": False, "choice": None} for r in b.rows]
    assert compare_models([a, changed(b, rows=[*b.rows, *rotated])], CompareSpec()) == plain
    with pytest.raises(BadInput, match="b: two rows for question 'q0'"):
        compare_models([a, changed(b, rows=[*b.rows, b.rows[0]])], CompareSpec())


def test_unparsed_answers_and_near_ties_are_counted() -> None:
    a, b = model("a", half, 10, prompts=("letter",)), model("b", all_right, 10, prompts=("letter",))
    b.rows[2].update(choice=None, correct=False, near_tie=True)
    scores = compare_models([a, b], CompareSpec())["cells"][0]["scores"]
    assert [(s["unparsed"], s["near_ties"]) for s in scores] == [(0.0, 0), (0.1, 1)]


def test_a_score_says_what_it_is_not_above() -> None:
    # Answers are 0, 1, 2, 3 in turn, so guessing and every constant answer score 25 %; moving answers to 0 lifts one constant.
    def mostly_first(m: ScoredModel) -> ScoredModel:
        return changed(
            m,
            rows=[
                {**r, "answer": 0, "choice": 0 if r["correct"] else 1} if int(r["id"][1:]) % 8 < 5 else r
                for r in m.rows
            ],
            questions={},
        )

    rights: list[Right] = [lambda i, _: i % 4 == 0, lambda i, _: i % 8 < 5, all_right]
    models = [mostly_first(model(n, right, 400)) for n, right in zip("abc", rights)]
    cell = compare_models(models, CompareSpec())["cells"][0]
    assert cell["constant"] == {"answer": 0, "accuracy": 0.625}
    assert [s["not_above"] for s in cell["scores"]] == ["chance", "constant", None]


def test_one_model_needs_the_published_counts() -> None:
    with pytest.raises(BadInput, match="One model is no comparison"):
        compare_models([model("a", half)], CompareSpec())
    (entry,) = compare_models([model("a", half)], CompareSpec(published=True))["published"]
    assert entry["why_not"] == "task"


def logiqa(
    n: int, split: str = "", group: str = "", whole: bool = True, prompts: tuple[str, ...] = ("text", "paper")
) -> ScoredModel:
    described = {**copy.deepcopy(TASK), "name": "logiqa2-zh", "split": split}
    described["prompts"] = {p: {"template": p} for p in prompts}
    questions = [{**question(i, "logiqa2-zh"), "group": group} for i in range(n)]
    rows = rows_of("ours", questions, lambda i, p: i % 4 < 2 if p == "paper" else True, prompts)
    return ScoredModel(
        "ours", rows, [TaskSpec.model_validate(described)], whole=frozenset({"likelihood"} if whole else ())
    )


@pytest.mark.parametrize(
    ("ours", "why_not"),
    [
        (logiqa(1594, split="test"), None),
        (logiqa(1594, group="test"), None),
        (logiqa(1594), None),
        (logiqa(1594, whole=False), "split"),
        (logiqa(1594, group="dev"), "split"),
        (logiqa(1594, split="train"), "split"),
        (logiqa(1593, split="test"), "n"),
    ],
)
def test_published_counts_stand_beside_the_whole_test_set_only(ours: ScoredModel, why_not: str | None) -> None:
    (entry,) = compare_models([ours], CompareSpec(published=True))["published"]
    assert entry["why_not"] == why_not
    if why_not is not None:
        assert entry["differences"] == entry["published"] == []
        return
    assert entry["prompt"] == "paper"
    # Passages are questions 0 and 1, 2 and 3, ..: both right, then both wrong; so a passage is one observation.
    deff = measured_design_effect({r["id"]: r for r in ours.rows if r["prompt"] == "paper"})
    assert deff == pytest.approx(2, abs=1e-3)
    first = entry["differences"][0]
    expected = unpaired_difference(421, 1594, 798, 1594, deff)
    assert (first["published"], first["right"], first["design_effect"]) == (
        "BELLE-LLaMA-Ext-7B",
        798,
        pytest.approx(deff, abs=1e-6),
    )
    assert first["difference"] == pytest.approx((798 - 421) / 1594, abs=1e-6)
    assert first["low"] == pytest.approx(expected.difference.low, abs=1e-6)
    assert first["p"] == pytest.approx(expected.p, abs=1e-6)

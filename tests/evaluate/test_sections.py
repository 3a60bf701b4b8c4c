from typing import Any

import pytest

from pandallm.evaluate import sections
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.tasks.load import task_hash
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

TASK = TaskSpec.model_validate(
    {
        "name": "t",
        "reader": "mcq",
        "prompts": {"p": {"template": "{options}", "answer": "letter"}, "q": {"template": "b"}},
    }
)
SPEC = EvaluateSpec(models=("m",))


def row(i: int, choice: int | None, **fields: Any) -> dict[str, Any]:
    """Question i: right answer i % 3 of three options; two questions a passage."""
    return {
        "model": "m",
        "task": "t",
        "prompt": "p",
        "method": "likelihood",
        "shots": 0,
        "chat": False,
        "order": 0,
        "id": str(i),
        "cluster": f"c{i // 2}",
        "group": "",
        "options": 3,
        "answer": i % 3,
        "choice": choice,
        "scores": None,
        "unconditional": None,
        "choices": None,
        "near_tie": None,
        "truncated": False,
        "completion": None,
        **fields,
        "correct": choice == i % 3,
    }


def summed(rows: list[dict[str, Any]], spec: EvaluateSpec = SPEC) -> dict[str, Any]:
    questions = [Question(str(i), "t", f"c{i // 2}", "", "?", ("x", "y", "z"), i % 3) for i in range(6)]
    return summarize(rows, [], questions, [TASK], spec)


def test_normalizations_by_hand() -> None:
    rows = [row(i, 0, prompt="q", choices={"sum": 0, "characters": i % 3, "bytes": 1}) for i in range(6)]
    (found,) = summed(rows)["normalizations"]
    assert (found["sum"], found["characters"], found["bytes"]) == (
        pytest.approx(1 / 3, abs=1e-6),
        1,
        pytest.approx(1 / 3, abs=1e-6),
    )
    assert found["unconditional"] is None
    rows = [{**r, "choices": {**r["choices"], "unconditional": 2}} for r in rows]
    assert summed(rows)["normalizations"][0]["unconditional"] == pytest.approx(1 / 3, abs=1e-6)
    assert summed([row(i, 0) for i in range(6)])["normalizations"] == []  # letters


def test_prompts_are_summed_over_the_questions_that_all_of_them_have() -> None:
    rows = [row(i, i % 3) for i in range(6)] + [row(i, 0, prompt="q") for i in range(6)]
    (found,) = summed(rows)["prompts"]
    assert (found["prompts"], found["max"], found["min"]) == (2, 1, pytest.approx(1 / 3, abs=1e-6))
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["spread"] == pytest.approx((2 / 3) / 2**0.5, abs=1e-6)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert summed(rows[:6])["prompts"] == []


def test_effects_are_paired_over_what_was_asked_both_ways() -> None:
    off, on = [row(i, 0) for i in range(6)], [row(i, i % 3, chat=True) for i in range(4)]
    only_off = [row(i, i % 3, prompt="q") for i in range(6)]
    s = summed(off + on + only_off, EvaluateSpec(models=("m",), chat="both"))
    (found,) = s["chat_effect"]
    # Of questions 0 to 3 the template turns 1 and 2 right; passages {0, 1} and {2, 3}: 2 of 4 sign patterns.
    assert (found["difference"], found["p"]) == (0.5, 0.5)
    assert s["shots_effect"] == []
    shots = [row(i, i % 3, shots=5) for i in range(6)]
    (found,) = summed(off + shots, EvaluateSpec(models=("m",), shots=(0, 5)))["shots_effect"]
    assert (found["from"], found["to"]) == (0, 5)
    assert found["difference"] == pytest.approx(2 / 3, abs=1e-6)


def test_orders_and_positions_by_hand() -> None:
    # The option shown first is always chosen: published position = order.
    always_a = [row(i, k, order=k) for k in range(3) for i in range(6)]
    (found,) = summed(always_a)["orders"]
    assert (found["orders"], found["consistent"], found["by_position"]) == (3, 0, [1, 0, 0])
    assert found["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    knows = [row(i, i % 3, order=k) for k in range(3) for i in range(6)]
    (found,) = summed(knows)["orders"]
    assert (found["accuracy"], found["consistent"]) == (1, 1)
    assert found["by_position"] == [pytest.approx(1 / 3, abs=1e-6)] * 3
    unparsed = [row(i, None, order=k, method="generation") for k in range(2) for i in range(6)]
    (found,) = summed(unparsed)["orders"]
    assert (found["consistent"], found["by_position"]) == (0, [None] * 3)


def test_letters_of_prompts_that_ask_for_one() -> None:
    s = summed([row(i, 2) for i in range(6)] + [row(i, 1, prompt="q") for i in range(6)])
    (found,) = s["letters"]
    assert (found["prompt"], found["chosen"]) == ("p", [0, 0, 1])
    assert found["answers"] == [pytest.approx(1 / 3, abs=1e-6)] * 3


def test_headline_and_differences_take_the_plain_rows() -> None:
    plain = [row(i, i % 3) for i in range(6)]
    others = [row(i, None, **how) for i in range(6) for how in ({"shots": 5}, {"chat": True}, {"order": 1})]
    spec = EvaluateSpec.model_validate(
        {"models": ["m"], "shots": [0, 5], "chat": "both", "orders": 2, "headline": {"tasks": ["t"], "prompts": ["p"]}}
    )
    s = summed(plain + others, spec)
    assert s["headline"]["m"]["accuracy"] == 1
    assert [(c["shots"], c["chat"], c["order"], c["accuracy"]) for c in s["table"]] == [
        (0, False, 0, 1), (5, False, 0, 0), (0, True, 0, 0), (0, False, 1, 0),
    ]  # fmt: skip
    chat_only = spec.model_copy(update={"chat": "on", "shots": (0,)})
    assert summed(plain + others, chat_only)["headline"]["m"]["accuracy"] == 0


def test_counts_and_the_reading_of_2023() -> None:
    rows = [row(i, None, method="generation", truncated=i < 2, choice_2023=0) for i in range(6)]
    rows += [row(i, 0, near_tie=i == 0) for i in range(6)]
    generated, scored = sorted(summed(rows)["table"], key=lambda c: c["method"])
    assert (generated["truncated"], generated["unparsed"]) == (2, 1)
    assert generated["accuracy_2023"] == pytest.approx(1 / 3, abs=1e-6)
    assert (scored["near_ties"], scored["accuracy_2023"]) == (1, None)


def test_letters_generated_and_scored_are_compared() -> None:
    rows = [row(i, 0) for i in range(6)]
    rows += [row(i, 0 if i < 3 else None, method="generation", choice_2023=None) for i in range(6)]
    (found,) = summed(rows)["audit"]
    assert (found["agreement"], found["unparsed"], found["parsed_agreement"]) == (0.5, 0.5, 1)


def test_rows_of_earlier_versions_are_summed_too() -> None:
    later = {*sections.DEFAULTS, "choice_2023"}
    old = [{k: v for k, v in row(i, 0, method="generation").items() if k not in later} for i in range(6)]
    assert summed(old)["tasks"] == [{"task": "t", "version": 1, "split": "", "hash": task_hash(TASK)}]
    (found,) = summed(old)["table"]
    assert (found["shots"], found["chat"], found["order"]) == (0, False, 0)
    assert (found["near_ties"], found["truncated"], found["accuracy_2023"]) == (0, 0, None)

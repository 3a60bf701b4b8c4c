from typing import Any

import pytest

from pandallm.evaluate.audit import agreement


def row(id_: str, method: str, choice: int | None, **more: Any) -> dict[str, Any]:
    base = {"model": "m", "task": "t", "prompt": "letter", "id": id_, "cluster": id_, "answer": 0, "choices": None}
    return base | {"method": method, "choice": choice, "correct": choice == 0} | more


def test_shares_by_hand() -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (1, None), (2, 2)]
    rows = [row(str(i), "likelihood", a) for i, (a, _) in enumerate(pairs)]
    rows += [row(str(i), "generation", b) for i, (_, b) in enumerate(pairs)]
    (found,) = agreement(rows)
    assert found["n"] == 5
    assert found["agreement"] == pytest.approx(2 / 5)
    assert found["unparsed"] == pytest.approx(1 / 5)
    assert found["parsed_agreement"] == pytest.approx(2 / 4)
    assert found["likelihood_only"] == pytest.approx(1 / 5)
    assert found["generation_only"] == pytest.approx(1 / 5)
    assert 0 <= found["low"] < 2 / 5 < found["high"] <= 1


def test_only_the_same_question_under_the_same_prompt_is_paired() -> None:
    rows = [
        row("1", "likelihood", 0, order=0),
        row("1", "likelihood", 1, order=1),
        row("1", "generation", 1, order=1),
        row("2", "generation", 0),  # not scored
        row("3", "likelihood", 0, prompt="text", choices={"sum": 0}),  # option texts
        row("3", "generation", 0, prompt="text"),
        row("4", "likelihood", None),  # the server gave no scores
        row("4", "generation", None),
        row("5", "likelihood", 0, chat=True),
        row("5", "generation", 0, chat=False),
    ]
    (found,) = agreement(rows)
    assert (found["n"], found["agreement"], found["prompt"]) == (1, 1.0, "letter")


def test_older_rows_and_all_unparsed() -> None:
    rows = [row(str(i), m, 0 if m == "likelihood" else None) for i in range(3) for m in ("likelihood", "generation")]
    for r in rows:
        del r["choices"]
    (found,) = agreement(rows)
    assert (found["agreement"], found["unparsed"], found["parsed_agreement"]) == (0.0, 1.0, None)
    assert (found["shots"], found["chat"]) == (0, False)
    assert agreement([]) == []

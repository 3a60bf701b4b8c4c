"""What the parity benchmark counts as a difference, and which questions it samples."""

import hashlib

import pytest

from pandallm.tasks.types import Question
from tests.benchmarks.test_scripts import load

parity = load("parity")


def row(identity: str, scores: list[float]) -> dict[str, object]:
    return {"id": identity, "scores": scores, "choice": max(range(len(scores)), key=lambda i: (scores[i], -i))}


def test_compare_finds_planted_differences() -> None:
    theirs = [row("a", [-1.0, -2.0]), row("b", [-3.0, -2.9995, -9.0]), row("c", [-5.0, -4.0])]
    same = parity.compare(theirs, theirs)
    assert same["changed_choices"] == []
    assert same["largest_difference_nats"] == 0
    assert (same["questions"], same["options"]) == (3, 7)
    assert [t["id"] for t in same["near_ties"]] == ["b"]
    ours = [row("a", [-1.0, -2.01]), row("b", [-2.999, -2.9995, -9.0]), row("c", [-5.0, -4.0])]
    found = parity.compare(ours, theirs)
    assert found["largest_difference_nats"] == pytest.approx(0.01)
    assert [(c["id"], c["ours"], c["theirs"]) for c in found["changed_choices"]] == [("b", 0, 1)]


def test_other_questions_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="other questions"):
        parity.compare([row("a", [-1.0, -2.0])], [row("b", [-1.0, -2.0])])


def test_the_sample_takes_whole_passages_in_file_order() -> None:
    questions = [Question(f"{c}{n}", "t", f"p{c}", "", "", ("x", "y"), 0) for n in range(3) for c in range(6)]
    kept = parity.sample_passages(questions, 7)
    assert len(kept) == 7
    assert kept == [q for q in questions if q in kept]
    first = sorted({q.cluster for q in questions}, key=lambda c: hashlib.sha256(c.encode()).digest())[:3]
    assert {q.cluster for q in kept} == set(first)
    assert sorted(sum(q.cluster == c for q in kept) for c in first) == [1, 3, 3]

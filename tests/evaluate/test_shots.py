from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.evaluate.shots import Examples, fold, same_content
from pandallm.tasks.types import Question


def question(i: int, passage: int = 0, asks: int = 0, group: str = "") -> Question:
    context = f"短文{passage}" if passage else ""
    cluster = f"c{passage}" if passage else f"q{i}"
    return Question(str(i), "t", cluster, context, f"问题{asks}", (f"甲{asks}", "乙"), 0, group)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.sampled_from(["", "g"])), min_size=2, max_size=30),
    st.integers(1, 4),
)
def test_an_example_is_never_the_question_its_passage_or_the_same_again(
    made: list[tuple[int, int, str]], n: int
) -> None:
    questions = [question(i, p, a, g) for i, (p, a, g) in enumerate(made)]
    examples = Examples(questions, questions)
    for q in questions:
        mates = [m for m in questions if m.cluster == q.cluster]
        possible = {
            (*same_content(e), e.id)
            for e in questions
            if e.cluster != q.cluster and all(same_content(e) != same_content(m) for m in mates)
        }
        if len(possible) < n:
            with pytest.raises(BadInput, match="fewer shots"):
                examples.draw(q, n)
            continue
        drawn = examples.draw(q, n)
        assert len({e.id for e in drawn}) == n
        for e in drawn:
            assert e.id != q.id
            assert e.cluster != q.cluster
            assert not (e.context and fold(e.context) == fold(q.context))
            assert same_content(e) != same_content(q)


def test_content_is_compared_after_folding_widths_case_space_and_order() -> None:
    q = Question("1", "t", "a", "", "ＡＢ 是什么？", ("Ｘ", "y"), 0)
    copy = Question("2", "t", "b", "别的短文", "ab是什么?", ("y", "X"), 1)
    same_passage = Question("3", "t", "c", "ＡＢ 短文", "别的", ("一", "二"), 0)
    asked = replace(q, context="ab短文")
    assert same_content(q) == same_content(copy)
    with pytest.raises(BadInput, match="0 others"):
        Examples([asked], [asked, copy, same_passage]).draw(asked, 1)


def test_the_same_examples_for_all_questions_of_a_passage_and_in_every_process() -> None:
    questions = [question(i, passage=1 + i // 3, asks=i) for i in range(30)]
    once, again = Examples(questions, questions), Examples(questions, questions)
    drawn = {q.id: [e.id for e in once.draw(q, 3)] for q in questions}
    assert drawn == {q.id: [e.id for e in again.draw(q, 3)] for q in reversed(questions)}
    assert drawn["0"] == drawn["1"] == drawn["2"]
    assert len({tuple(d) for d in drawn.values()}) > 5


def test_examples_of_the_own_subject_come_first() -> None:
    questions = [question(i, asks=i, group="law" if i % 2 else "art") for i in range(20)]
    examples = Examples(questions, questions)
    assert {e.group for e in examples.draw(questions[1], 5)} == {"law"}
    assert len(examples.draw(questions[1], 15)) == 15  # more than its subject has


def test_a_file_of_examples_is_the_pool() -> None:
    questions, pool = [question(i, asks=i) for i in range(5)], [question(100 + i, asks=50 + i) for i in range(5)]
    drawn = Examples(questions, [*pool, questions[0]]).draw(questions[0], 5)
    assert {e.id for e in drawn} == {e.id for e in pool}

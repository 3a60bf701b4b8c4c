"""Overlaps with benchmarks: what plain search over sets of n-grams finds, no more and no less."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data import decontaminate
from pandallm.data.decontaminate import ContaminationIndex, Overlap, contamination_text

HAN = [chr(0x4E00 + i) for i in range(2_000)]


def prose(seed: int, n: int) -> str:
    return "".join(random.Random(seed).choices(HAN, k=n))


def grams(text: str, n: int) -> set[str]:
    plain = contamination_text(text)
    return {plain[i : i + n] for i in range(len(plain) - n + 1)}


def by_hand(questions: dict[str, list[tuple[str, str]]], text: str, n: int) -> set[Overlap]:
    own: dict[tuple[str, str], set[str]] = {}
    for task, rows in questions.items():
        for question, words in rows:
            own.setdefault((task, question), set()).update(grams(words, n))
    shared = {name: len(g & grams(text, n)) for name, g in own.items()}
    return {Overlap(*name, k, k / len(own[name])) for name, k in shared.items() if k}


NAMED = st.lists(st.tuples(st.sampled_from("123"), st.text("甲乙,丙 AΣς①", max_size=30)), max_size=4)


@settings(max_examples=200, deadline=None)
@given(NAMED, NAMED, st.lists(st.text("甲乙,丙 aσ1\u0301", max_size=40), max_size=6), st.sampled_from([4, 6, 7]))
def test_overlaps_equal_plain_search(one: list, two: list, texts: list[str], n: int) -> None:
    """A question id may come with several texts, and two tasks may have the same ids."""
    questions = {"one": one, "two": two}
    got = ContaminationIndex(questions, n).overlaps(texts)
    assert [set(hits) for hits in got] == [by_hand(questions, t, n) for t in texts]
    for hits in got:
        assert len(hits) == len(set(hits))
        assert [h.grams for h in hits] == sorted((h.grams for h in hits), reverse=True)


def test_a_large_index_against_large_texts() -> None:
    questions = {"t": [(str(i), prose(i, 80)) for i in range(2_000)]}
    texts = [prose(10_000 + i, 500) for i in range(300)]
    texts[17] = texts[17][:200] + questions["t"][5][1] + texts[17][200:]
    texts[99] = texts[99][:100] + "，".join(questions["t"][7][1][10:40]) + texts[99][100:]
    texts.append(prose(0, 60) + prose(1, 79) + prose(2, 12))
    got = ContaminationIndex(questions).overlaps(texts)
    assert {i for i, hits in enumerate(got) if hits} == {17, 99, 300}
    assert got[17] == [Overlap("t", "5", 68, 1.0)]
    assert got[99] == [Overlap("t", "7", 18, pytest.approx(18 / 68))]
    assert got[300] == [Overlap("t", "1", 67, pytest.approx(67 / 68)), Overlap("t", "0", 48, pytest.approx(48 / 68))]


def test_runs_end_with_their_text() -> None:
    questions = {"t": [("a", "甲乙丙丁戊")]}
    assert ContaminationIndex(questions, 4).overlaps(["甲乙", "丙丁", "戊", "甲乙丙"]) == [[], [], [], []]


def test_texts_of_one_question_may_stand_apart() -> None:
    questions = {"t": [("a", "甲乙丙丁"), ("b", "甲乙丙丁戊"), ("a", "甲乙丙丁"), ("a", "子丑寅卯")]}
    (hits,) = ContaminationIndex(questions, 4).overlaps(["甲乙丙丁戊"])
    assert hits == [Overlap("t", "b", 2, 1.0), Overlap("t", "a", 1, 0.5)]


def test_hashes_that_meet_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all hashes equal, the characters would still decide."""
    real = decontaminate.ngram_hashes, decontaminate.window_hashes
    monkeypatch.setattr(decontaminate, "window_hashes", lambda points, n: real[1](points, n) * 0 + 7)
    monkeypatch.setattr(decontaminate, "ngram_hashes", lambda b, n: (real[0](b, n)[0] * 0 + 7, real[0](b, n)[1]))
    index = ContaminationIndex({"t": [("a", "甲乙丙丁"), ("b", "子丑寅卯")]}, 4)
    assert index.overlaps(["子丑寅卯", "天地玄黄"]) == [[Overlap("t", "b", 1, 1.0)], []]


def test_nothing_to_find() -> None:
    assert ContaminationIndex({}).overlaps(["甲" * 20, ""]) == [[], []]
    assert ContaminationIndex({"t": []}).overlaps([]) == []
    short = ContaminationIndex({"t": [("a", "甲乙丙"), ("b", "")]})
    assert short.overlaps(["甲乙丙" * 9]) == [[]]


def test_a_text_is_listed_with_its_strongest_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = {"t": [(str(i), prose(7, 20 + i)) for i in range(9)]}
    monkeypatch.setattr(decontaminate, "MAX_OVERLAPS", 3)
    (hits,) = ContaminationIndex(questions).overlaps([prose(7, 100)])
    assert [(h.question, h.grams, h.share) for h in hits] == [("8", 16, 1.0), ("7", 15, 1.0), ("6", 14, 1.0)]

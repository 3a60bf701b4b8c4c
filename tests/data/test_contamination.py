"""The contamination report: who touches what, how strongly, and what a clean subset leaves out."""

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.contamination import MAX_DOCUMENTS, Hit, merge_contamination

QUESTIONS = {"c3": ["a", "b", "c"], "exam": ["a"]}


def test_report_by_question() -> None:
    hits = [
        Hit("d1", "web", "kept", [("c3", "a", 3, 0.25), ("exam", "a", 1, 0.1)]),
        Hit("d2", "web", "held_out", [("c3", "b", 10, 1.0)]),
        Hit("d3", "wiki", "duplicate", [("c3", "a", 9, 0.75)]),
    ]
    report = merge_contamination(hits, QUESTIONS, 13, "report")
    assert json.loads(json.dumps(report)) == report
    assert (report["ngram_chars"], report["action"]) == (13, "report")
    assert report["tasks"]["c3"] == {
        "questions": 3,
        "touched": 2,
        "documents": 3,
        "by_question": [
            {
                "question": "b",
                "share": 1.0,
                "documents": [{"id": "d2", "source": "web", "grams": 10, "share": 1.0, "fate": "held_out"}],
                "documents_total": 1,
            },
            {
                "question": "a",
                "share": 0.75,
                "documents": [
                    {"id": "d3", "source": "wiki", "grams": 9, "share": 0.75, "fate": "duplicate"},
                    {"id": "d1", "source": "web", "grams": 3, "share": 0.25, "fate": "kept"},
                ],
                "documents_total": 2,
            },
        ],
        "exclude": ["a"],  # d2 is not trained on
    }
    assert report["tasks"]["exam"]["exclude"] == ["a"]


def test_dropped_documents_leave_nothing_to_exclude() -> None:
    report = merge_contamination([Hit("d", "s", "dropped", [("c3", "a", 3, 0.5)])], QUESTIONS, 13, "drop")
    assert (report["tasks"]["c3"]["touched"], report["tasks"]["c3"]["exclude"]) == (1, [])
    assert report["tasks"]["exam"] == {"questions": 1, "touched": 0, "documents": 0, "by_question": [], "exclude": []}


@given(st.integers(1, 60), st.integers(0, 9))
def test_the_strongest_documents_are_listed_and_all_are_counted(n: int, seed: int) -> None:
    rng = random.Random(seed)
    hits = [Hit(f"d{i}", "s", "dropped", [("exam", "a", k := rng.randint(1, 30), k / 30)]) for i in range(n)]
    hits[rng.randrange(n)] = Hit("weak", "s", "kept", [("exam", "a", 1, 1 / 30)])
    (row,) = merge_contamination(hits, QUESTIONS, 13, "report")["tasks"]["exam"]["by_question"]
    expected = sorted(hits, key=lambda h: -h.overlaps[0][2])  # stable: the earlier one first
    assert [d["id"] for d in row["documents"]] == [h.id for h in expected[:MAX_DOCUMENTS]]
    assert row["documents_total"] == n
    report = merge_contamination(hits, QUESTIONS, 13, "report")
    assert report["tasks"]["exam"]["exclude"] == ["a"]  # also where the document that is trained on is not listed
    assert report["tasks"]["exam"]["documents"] == n


def test_a_repeated_question_id_is_one_question() -> None:
    report = merge_contamination([], {"t": ["a", "a", "b"]}, 13, "drop")
    assert report["tasks"]["t"]["questions"] == 2

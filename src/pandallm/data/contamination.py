"""The contamination report of a corpus: which documents touch which questions, by how much, and what to leave out for a clean score."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any, Literal, NamedTuple, TypeAlias

Fate: TypeAlias = Literal["dropped", "kept", "held_out", "duplicate"]

#: Of the documents that touch a question the strongest so many are listed.
MAX_DOCUMENTS = 20


class Hit(NamedTuple):
    """A document that touches questions. overlaps: (task, question, grams, share) each, see `decontaminate.Overlap`."""

    id: str
    source: str
    fate: Fate
    overlaps: Sequence[tuple[str, str, int, float]]


@dataclass
class _Question:
    number: int
    total: int = 0
    trained_on: bool = False
    # (grams, share, -order): the weakest first, the later one first among equals.
    strongest: list[tuple[int, float, int, dict[str, Any]]] = field(default_factory=list)

    def add(self, order: int, hit: Hit, grams: int, share: float) -> None:
        self.total += 1
        self.trained_on |= hit.fate == "kept"
        document = {"id": hit.id, "source": hit.source, "grams": grams, "share": round(share, 4), "fate": hit.fate}
        entry = (grams, share, -order, document)
        if len(self.strongest) < MAX_DOCUMENTS:
            heappush(self.strongest, entry)
        else:
            heappushpop(self.strongest, entry)


def merge_contamination(
    hits: Iterable[Hit], questions: Mapping[str, Sequence[str]], ngram_chars: int, action: Literal["drop", "report"]
) -> dict[str, Any]:
    """The content of `contamination.json`; memory grows with the questions, not with the documents.

    hits: of all shards, in the corpus's order. questions: task -> ids of all its questions, in order.

    {"ngram_chars", "action", "tasks": {task: {"questions", "touched", "documents" (numbers of each), "by_question":
    [{"question", "share" (largest of a document), "documents": [{"id", "source", "grams", "share", "fate"}] (at most 20,
    strongest first), "documents_total"}] (largest share first), "exclude": [ids of the questions that documents which
    are trained on touch]}}}. A repeated question id is one question.
    """
    tasks = {task: {q: _Question(i) for i, q in enumerate(dict.fromkeys(ids))} for task, ids in questions.items()}
    documents = dict.fromkeys(tasks, 0)
    for order, hit in enumerate(hits):
        touched = set()
        for task, question, grams, share in hit.overlaps:
            touched.add(task)
            tasks[task][question].add(order, hit, grams, share)
        for task in touched:
            documents[task] += 1
    return {
        "ngram_chars": ngram_chars,
        "action": action,
        "tasks": {task: _task(known, documents[task]) for task, known in tasks.items()},
    }


def _task(questions: Mapping[str, _Question], documents: int) -> dict[str, Any]:
    touched = {name: q for name, q in questions.items() if q.total}
    by_question: list[dict[str, Any]] = [
        {
            "question": name,
            "share": round(max(share for _, share, _, _ in q.strongest), 4),
            "documents": [d for *_, d in sorted(q.strongest, key=lambda e: e[:3], reverse=True)],
            "documents_total": q.total,
        }
        for name, q in touched.items()
    ]
    by_question.sort(key=lambda row: -row["share"])
    return {
        "questions": len(questions),
        "touched": len(touched),
        "documents": documents,
        "by_question": by_question,
        "exclude": [name for name, q in touched.items() if q.trained_on],
    }

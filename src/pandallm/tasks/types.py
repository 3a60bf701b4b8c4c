"""Question: what every benchmark is read into."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One multiple-choice question. `answer` is an index into `options`; `cluster` groups questions that share a passage, fact or person."""

    id: str
    task: str
    cluster: str
    context: str
    question: str
    options: tuple[str, ...]
    answer: int
    group: str = ""  # e.g. test, dev, never_seen


LETTERS = "ABCDEFGHIJ"

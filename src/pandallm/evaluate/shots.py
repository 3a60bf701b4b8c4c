"""Examples before a question: drawn the same everywhere, and never the question itself or one of its passage."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from pandallm.errors import BadInput
from pandallm.tasks.types import Question

#: Draws per wanted example before the remaining candidates are gone through one by one.
TRIES = 30


def fold(text: str) -> str:
    """Text by which contents are compared: NFKC, case folded, without white space."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def same_content(question: Question) -> tuple[str, tuple[str, ...]]:
    """What is asked, whatever the passage and the order of the options."""
    return fold(question.question), tuple(sorted(fold(o) for o in question.options))


class Examples:
    """Draws examples for the questions of `questions` out of `pool` (the same list, or an example file).

    Left out are questions of the same cluster, with the same passage, or that ask the same with the same options, as
    any question of the drawn-for question's cluster. Examples of the question's own group (a subject) come first where
    there are enough. Draws are by hash of task and cluster, so all questions of a passage have the same examples
    (they are computed once) and every process draws the same.
    """

    def __init__(self, questions: Sequence[Question], pool: Sequence[Question]) -> None:
        self._pool = list(pool)
        self._passages: dict[str, set[str]] = defaultdict(set)
        self._contents: dict[str, set[tuple[str, tuple[str, ...]]]] = defaultdict(set)
        for q in questions:
            self._passages[q.cluster].add(fold(q.context))
            self._contents[q.cluster].add(same_content(q))
        self._folded = [(fold(q.context), same_content(q)) for q in self._pool]
        self._groups: dict[str, list[int]] = defaultdict(list)
        for i, q in enumerate(self._pool):
            self._groups[q.group].append(i)
        self._drawn: dict[tuple[str, str, int], list[Question]] = {}

    def draw(self, question: Question, n: int) -> list[Question]:
        """`n` examples. Raises BadInput where the pool has too few others."""
        key = (question.cluster, question.group, n)
        if key not in self._drawn:
            own = self._draw(question, self._groups.get(question.group, []), n)
            drawn = own if len(own) == n else self._draw(question, range(len(self._pool)), n)
            if len(drawn) < n:
                raise BadInput(
                    f"Task {question.task}: question {question.id} has {len(drawn)} others to draw {n} examples from; "
                    "use fewer shots, or give the task more `examples`."
                )
            self._drawn[key] = drawn
        return self._drawn[key]

    def allowed(self, question: Question, candidate: int) -> bool:
        """Whether example number `candidate` of the pool may stand before `question`."""
        passage, content = self._folded[candidate]
        return not (
            self._pool[candidate].cluster == question.cluster
            or (passage and passage in self._passages.get(question.cluster, ()))
            or content in self._contents.get(question.cluster, ())
        )

    def _draw(self, question: Question, candidates: Sequence[int], n: int) -> list[Question]:
        if not candidates:
            return []
        found: list[int] = []
        for k in range(TRIES * n):
            if len(found) == n:
                break
            seed = f"{question.task}\0{question.cluster}\0{k}".encode()
            pick = candidates[int.from_bytes(hashlib.sha256(seed).digest()[:8]) % len(candidates)]
            if pick not in found and self.allowed(question, pick):
                found.append(pick)
        for pick in candidates:  # a small pool, or one of many forbidden
            if len(found) == n:
                break
            if pick not in found and self.allowed(question, pick):
                found.append(pick)
        return [self._pool[i] for i in found]

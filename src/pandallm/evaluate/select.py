"""What settings select: prompts by name, samples of questions."""

import difflib
import hashlib
from collections.abc import Sequence

from pandallm.errors import BadInput
from pandallm.tasks.read import sample_questions
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


def selected_prompts(task: TaskSpec, prompts: tuple[str, ...] | str) -> list[str]:
    """Names of the task's prompts that `prompts` selects ("all", or names), in the order of `prompts` or of the task.

    Raises BadInput for a name that the task lacks, with the nearest that it has.
    """
    if isinstance(prompts, str):
        return list(task.prompts)
    for name in prompts:
        if name not in task.prompts:
            near = difflib.get_close_matches(name, task.prompts, n=1, cutoff=0.0)
            raise BadInput(
                f"Task {task.name} has no prompt {name!r}; did you mean {near[0]!r}? It has: {', '.join(task.prompts)}."
            )
    return list(prompts)


def sample(questions: Sequence[Question], passages: int | None, limit: int | None) -> list[Question]:
    """Fixed random samples, in file order: `passages` whole clusters (smallest hash of their names), then `limit` questions."""
    if passages is not None:
        names = sorted({q.cluster for q in questions}, key=lambda c: hashlib.sha256(c.encode()).digest())
        kept = set(names[:passages])
        questions = [q for q in questions if q.cluster in kept]
    return sample_questions(questions, limit)

"""Names of prompts in settings -> prompts of tasks."""

import difflib

from pandallm.errors import BadInput
from pandallm.tasks.spec import TaskSpec


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

"""Benchmarks of many subjects (`TaskSpec.subjects`): every number is of the whole; the score table also lists the subjects."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.tasks.spec import TaskSpec

Row = Mapping[str, Any]


def as_whole(rows: Sequence[Row], tasks: Mapping[str, TaskSpec]) -> list[Row]:
    """The rows, with group "" where a task's groups are its subjects; of other tasks unchanged."""
    return [{**r, "group": ""} if r["group"] and _subjects(r, tasks) else r for r in rows]


def with_whole(rows: Sequence[Row], tasks: Mapping[str, TaskSpec]) -> list[Row]:
    """The rows, and once more as a whole those of tasks with subjects."""
    return [*rows, *as_whole([r for r in rows if r["group"] and _subjects(r, tasks)], tasks)]


def _subjects(row: Row, tasks: Mapping[str, TaskSpec]) -> bool:
    return row["task"] in tasks and tasks[row["task"]].subjects

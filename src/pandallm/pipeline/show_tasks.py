"""What `panda eval --list` prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from pandallm.tasks.open import TaskStatus


def print_task_list(statuses: Sequence[TaskStatus], as_json: bool = False, console: Console | None = None) -> None:
    """A table of tasks and splits, then how to get those that are missing; as JSON one array of objects."""
    if as_json:
        rows = [{**asdict(s), "files": [str(p) for p in s.files]} for s in statuses]
        print(json.dumps(rows, ensure_ascii=False))
        return
    console = console or Console()
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("task", "split", "questions", "language", "benchmark"):
        table.add_column(column, justify="right" if column == "questions" else "left", no_wrap=column != "benchmark")
    for s in statuses:
        table.add_row(s.name, s.split + (" *" if s.default and s.split else ""), _questions(s), s.language, s.title)
    console.print(table)
    console.print("* what the task's name alone means; another split: NAME:SPLIT, such as c3-m:dev", style="dim")
    for s in statuses:
        label = f"{s.name}:{s.split}" if s.split else s.name
        if s.told:
            console.print(f"{label}: {s.told}", highlight=False, markup=False, emoji=False, soft_wrap=True)
    missing = [s for s in statuses if not s.files and (s.default or not s.split)]
    if missing:
        console.print("\nNot here, and how to get it:")
        for get, licence in dict.fromkeys((s.get, s.licence) for s in missing):
            names = ", ".join(s.name for s in missing if (s.get, s.licence) == (get, licence))
            text = f"{names}: {get}. Licence: {licence}."
            console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _questions(s: TaskStatus) -> str:
    if not s.split and not s.files:
        return "made by a run"
    if not s.files:
        return "broken" if s.told else "missing"
    if s.n is None:
        return "broken"
    return str(s.n) if s.expected in (None, s.n) else f"{s.n} of {s.expected}"

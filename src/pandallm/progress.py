"""How long work tells where it stands. Rooms report here; the command line draws it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """`amount` more of the total is done; `note` is a short live text such as `loss 3.21`."""


class Progress(Protocol):
    """Where tasks are shown."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        """Open a task of `total` units (None where unknown)."""
        ...

    def say(self, text: str) -> None:
        """Print one line above the running tasks."""


class _SilentTask:
    def advance(self, amount: float = 1.0, note: str = "") -> None:
        pass


class Silent:
    """Progress that shows nothing; the default in library use and in tests."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        yield _SilentTask()

    def say(self, text: str) -> None:
        pass


SILENT = Silent()

"""Progress on a terminal (live bars with time left) or in a log (a line now and then). Always on stderr: stdout is for results."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pandallm.progress import Progress, Task


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        if note:
            self._bars.update(self._task, advance=amount, note=note)
        else:
            self._bars.advance(self._task, amount)


class TerminalProgress:
    """rich bars; finished tasks disappear and leave one line each (said by who ran them)."""

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=Console(stderr=True),
            transient=True,
            speed_estimate_period=60,
        )

    def __enter__(self) -> "TerminalProgress":
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        task = self._bars.add_task(name, total=total, note="")
        try:
            yield _Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


class _Lines:
    """A task that prints at most one line every `every` seconds."""

    def __init__(self, name: str, total: float | None, outer: "LogProgress") -> None:
        self._name, self._total, self._outer = name, total, outer
        self._done, self._started, self.note = 0.0, time.monotonic(), ""
        self._first: tuple[float, float] | None = (
            None  # amount and time of the first advance: work that goes on jumps there
        )

    def status(self) -> str:
        elapsed = time.monotonic() - self._started
        if not self._total:
            return f"{self._name}: {elapsed:.0f} s"
        share = min(self._done / self._total, 1.0)
        done, since = self._first or (0.0, self._started)
        made = self._done - done
        left = (
            f", {(time.monotonic() - since) / made * max(0.0, self._total - self._done):.0f} s left" if made > 0 else ""
        )
        return f"{self._name}: {share:.0%}{left}{', ' + self.note if self.note else ''}"

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._done += amount
        if self._first is None and amount > 0:
            self._first = (self._done, time.monotonic())
        self.note = note or self.note
        self._outer.tick()


class LogProgress:
    """Plain lines on stderr, for logs and pipes."""

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._last, self._open = every, time.monotonic(), list[_Lines]()

    def __enter__(self) -> "LogProgress":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        task = _Lines(name, total, self)
        self._open.append(task)
        try:
            yield task
        finally:
            self._open.remove(task)

    def tick(self) -> None:
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self.say(" | ".join(task.status() for task in self._open))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """What fits where stderr goes."""
    if quiet:
        from pandallm.progress import SILENT

        yield SILENT
    else:
        with TerminalProgress() if sys.stderr.isatty() else LogProgress() as shown:
            yield shown

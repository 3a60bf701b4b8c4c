"""One bar for the whole run: parts of known cost, moved by whatever the rooms report inside them."""

from collections.abc import Iterator
from contextlib import contextmanager

from pandallm.progress import Progress, Task


class _Forward:
    """A room's task that also moves the whole run's bar."""

    def __init__(self, inner: Task, part: "_Part", total: float | None) -> None:
        self._inner, self._part, self._total = inner, part, total

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._inner.advance(amount, note)
        if self._total:
            self._part.advance(amount / self._total)


class _Part:
    """One part of the run; a Progress for the room that does it. Several tasks in a row share its cost."""

    def __init__(self, progress: Progress, whole: Task | None, cost: float) -> None:
        self._progress, self._whole, self._cost, self._done = progress, whole, cost, 0.0

    def advance(self, share: float) -> None:
        share = min(share, 1.0 - self._done)
        self._done += share
        if self._whole:
            self._whole.advance(share * self._cost)

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        with self._progress.task(name, total, unit) as inner:
            yield _Forward(inner, self, total)

    def say(self, text: str) -> None:
        self._progress.say(text)

    def finish(self) -> None:
        self.advance(1.0)


class Overall:
    """The whole run's bar. Costs are in forward-pass tokens: a trained token costs three, a scored one costs one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole: Task | None = None

    @contextmanager
    def whole(self, total_cost: float) -> Iterator[None]:
        """Show the bar; parts inside move it."""
        with self._progress.task("whole run", total_cost) as self._whole:
            yield
        self._whole = None

    @contextmanager
    def part(self, cost: float = 0.0) -> Iterator[_Part]:
        """A part of this cost; at its end the bar stands where it should, also if the part was reused."""
        part = _Part(self._progress, self._whole, cost)
        yield part
        part.finish()

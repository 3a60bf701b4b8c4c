from collections.abc import Iterator
from contextlib import contextmanager

from pandallm.pipeline.overall import Overall
from pandallm.progress import Task


class Recorder:
    """Progress that remembers how far each task came."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        recorder = self

        class One:
            def advance(self, amount: float = 1.0, note: str = "") -> None:
                recorder.done[name] = recorder.done.get(name, 0.0) + amount

        self.done[name] = 0.0
        yield One()

    def say(self, text: str) -> None:
        pass


def test_parts_move_the_whole_by_their_cost() -> None:
    recorder = Recorder()
    overall = Overall(recorder)
    with overall.whole(100):
        with overall.part(60) as part, part.task("train", 10) as task:
            task.advance(5)
            assert recorder.done == {"whole run": 30, "train": 5}
        with overall.part(40):  # reused: nothing reported, and yet done at its end
            pass
    assert recorder.done["whole run"] == 100


def test_a_part_that_reports_more_than_it_announced_does_not_overshoot() -> None:
    recorder = Recorder()
    overall = Overall(recorder)
    with overall.whole(10), overall.part(10) as part:
        for _ in range(2):
            with part.task("again", 1) as task:
                task.advance(1)
    assert recorder.done["whole run"] == 10

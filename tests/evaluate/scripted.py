"""A backend without a model, for worker processes; imports little, so that they begin quickly."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Answered, Asked, Scored
from pandallm.evaluate.parallel import ParallelBackend


class Scripted:
    """Scores are lengths; `trouble` names what goes wrong, in the worker on device "cpu"."""

    def __init__(self, trouble: str, device: str) -> None:
        self.trouble, self.device = trouble, device
        if trouble == "open" and device == "cpu":
            raise BadInput("There is no model.")
        if trouble == "die at once" and device == "cpu":
            os._exit(3)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"files": "scripted", "pid": os.getpid(), "omp": os.environ.get("OMP_NUM_THREADS")}

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool]
    ) -> Iterator[list[tuple[int, Scored]]]:
        for i, a in enumerate(asked):
            if a.context == "bad input":
                raise BadInput("The prompt is too long.")
            if a.context == "bug":
                raise ZeroDivisionError("a bug")
            if a.context == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if a.context == "slow":
                time.sleep(20)
            if not done(i):
                yield [(i, Scored([float(len(c)) for c in a.continuations] + [float(os.getpid())]))]

    def generate(
        self, asked: Sequence[Asked], new: int, settled: Callable[[int, str], bool], done: Callable[[int], bool]
    ) -> Iterator[list[tuple[int, Answered]]]:
        for i, a in enumerate(asked):
            text = ""
            while len(text) < new and not settled(i, text):
                text += a.context[-1]
            yield [(i, Answered(text))]


def opened(trouble: str = "", devices: Sequence[str] = ("cpu", "other"), **more: Any) -> ParallelBackend:
    return ParallelBackend(partial(Scripted, trouble), devices, **more)


def never(i: int, text: str = "") -> bool:
    return False

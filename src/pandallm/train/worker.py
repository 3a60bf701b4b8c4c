"""One rank of a stage that `train.launch` started: `python -m pandallm.train.worker`, the job on stdin, news on stdout."""

import contextlib
import json
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.progress import SILENT, Task


class _Told:
    """Progress that goes to the process that started this one."""

    def __init__(self, tell: Any) -> None:
        self._tell, self._numbers = tell, count()

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        number = next(self._numbers)
        self._tell({"task": number, "open": [name, total, unit]})
        try:
            yield _ToldTask(self._tell, number)
        finally:
            self._tell({"close": number})

    def say(self, text: str) -> None:
        self._tell({"say": text})


class _ToldTask:
    def __init__(self, tell: Any, number: int) -> None:
        self._tell, self._number = tell, number

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._tell({"task": self._number, "advance": [amount, note]})


def main() -> None:
    """Train as rank RANK of WORLD_SIZE, then leave at once: everything to keep is on the disk by then."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no news
    lock = threading.Lock()

    def tell(message: dict[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        code = _train(job, tell)
    except BaseException as e:
        code = 1
        with contextlib.suppress(OSError):  # the parent is gone
            tell(_last_words(e))
    os._exit(code)


def _leave_with_parent() -> None:
    """A killed parent closes the pipe: without this the ranks would train on, beside those of the next call."""
    sys.stdin.buffer.read()
    os._exit(1)


def _train(job: dict[str, Any], tell: Any) -> int:
    from pandallm.train.loop import train_stage
    from pandallm.train.world import join_world

    until = job.pop("until")
    deadline = None if until is None else time.monotonic() + until - time.time()
    with join_world(job.pop("device")) as world:
        progress = _Told(tell) if world.main else SILENT
        facts = train_stage(**job, world=world, deadline=deadline, progress=progress)
    tell({"facts": facts})
    return 0


def _last_words(error: BaseException) -> dict[str, Any]:
    from pandallm.train.world import is_lost

    if isinstance(error, PandaError):
        kind = next((k for k in (BadInput, Interrupted) if isinstance(error, k)), PandaError)
        return {"kind": kind.__name__, "text": str(error)}
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    lines = "".join(traceback.format_exception(error))
    return {"kind": "Lost" if is_lost(error) else "Unexpected", "text": text, "traceback": lines}


if __name__ == "__main__":
    main()

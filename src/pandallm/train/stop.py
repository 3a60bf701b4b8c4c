"""Leaving in good order: SIGTERM, SIGINT."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """A list that gets the signal's name on SIGTERM or SIGINT; a second one acts as usual. Main thread only."""
    stopped: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: Any) -> None:
        stopped.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    for s in before:
        signal.signal(s, stop)
    try:
        yield stopped
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)

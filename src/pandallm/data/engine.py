"""Where shard tasks run: in this process, in local worker processes, or on Ray. The same tasks, the same results in the same order."""

import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, TypeVar

from pandallm.errors import PandaError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class Engine(Protocol):
    """Runs stateless tasks. `workers` tells how many run at once."""

    workers: int

    def map(
        self,
        function: Callable[[S, T], R],
        items: Iterable[T],
        make_state: Callable[[], S],
        *,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """`function(state, item)` for each item, results in the items' order; `make_state()` runs once per process.

        At most `ahead` items (default `4 * workers`) are under way, so that memory stays flat. `function`, `make_state` and
        the items must be picklable. Raises PandaError when a worker dies (most often for memory).
        """
        ...


class LocalEngine:
    """Worker processes on this machine; with one worker everything runs in this process.

    The pool starts with the first `map` and stays warm for later ones; use it as a context manager, or `close()` it.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = max(1, workers)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; tasks that have not begun are dropped."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(
        self,
        function: Callable[[S, T], R],
        items: Iterable[T],
        make_state: Callable[[], S],
        *,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """See `Engine.map`."""
        if self.workers == 1:
            state = make_state()
            for item in items:
                yield function(state, item)
            return
        if self._pool is None:
            # spawn: a fork of a process that has run torch or tokenizer threads may hang.
            self._pool = ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))
        make = pickle.dumps(make_state)
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(_call, function, make, item))
                if len(waiting) >= (ahead or 4 * self.workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            self._pool = None
            raise PandaError(
                f"A worker process died (often for lack of memory); run again with fewer workers than {self.workers}."
            ) from None
        finally:
            for future in waiting:
                future.cancel()


_state: tuple[bytes, Any] | None = None


def _call(function: Callable[[Any, T], R], make: bytes, item: T) -> R:
    """In the worker: the state is made once and kept until another kind of task comes."""
    global _state
    if _state is None or _state[0] != make:
        _state = (make, pickle.loads(make)())
    return function(_state[1], item)

"""Where shard tasks run: in this process, in local worker processes, or on Ray. The same tasks, the same results in the same order."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from pandallm.data.memory import keep_freed_memory
from pandallm.errors import PandaError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class Engine(Protocol):
    """Runs stateless tasks."""

    @property
    def workers(self) -> int:
        """How many tasks run at once."""
        ...

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

    def close(self) -> None:
        """Stop the workers; tasks that have not begun are dropped."""


def open_engine(kind: Literal["local", "ray"], workers: int, ray_address: str | None = None) -> Engine:
    """The engine that a recipe's `runtime` names; close it after use. Raises BadInput where Ray is not installed."""
    if kind == "ray":
        from pandallm.data.ray_engine import RayEngine

        return RayEngine(ray_address)
    return LocalEngine(workers)


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
        """See `Engine.close`."""
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
            keep_freed_memory()
            state = make_state()
            for item in items:
                yield function(state, item)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=_context(), initializer=_start_worker)
        make = pickle.dumps(make_state)
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                with _bare_main():  # workers start with the first task
                    waiting.append(self._pool.submit(call_with_state, function, make, item))
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


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: as forks of one fresh process that has imported what tasks need, and no threads.

    A fork of this process, which may have run torch or tokenizer threads, could hang; a fresh process for each worker
    (`spawn`) would import everything again.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pandallm.data.worker"])
    return context


@contextmanager
def _bare_main() -> Iterator[None]:
    """Workers import the program's main module anew; where that is our own command line, they need nothing of it."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    ours = spec.name.startswith("pandallm") if spec else file is not None and Path(file).stem == "panda"
    if not ours:
        yield
        return
    main.__spec__ = None
    if file is not None:
        del main.__file__
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _start_worker() -> None:
    """In a new worker: Ctrl-C is the parent's to answer, and the worker ends with its parent, also where that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


_state: tuple[bytes, Any] | None = None


def call_with_state(function: Callable[[Any, T], R], make: bytes, item: T) -> R:
    """In the worker: the state is made once (from the pickled `make`) and kept until another kind of task comes."""
    global _state
    if _state is None or _state[0] != make:
        _state = None  # the old one goes before the new one takes memory
        _state = (make, pickle.loads(make)())
    return function(_state[1], item)

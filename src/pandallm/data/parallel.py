"""Ordered map over tasks, here or in worker processes: the same results in the same order for any number of workers."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pandallm.errors import PandaError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

_state: object = None


def _start(make: Callable[[], object]) -> None:
    global _state
    _state = make()


def _call(function: Callable[[object, T], R], item: T) -> R:
    return function(_state, item)


def ordered_map(
    function: Callable[[S, T], R], items: Iterable[T], make_state: Callable[[], S], workers: int = 1
) -> Iterator[R]:
    """`function(state, item)` for each item, results in the items' order; `make_state()` runs once per process.

    At most `4 * workers` items are under way, so that memory stays flat. With several workers, `function` and
    `make_state` must be importable and picklable. Raises PandaError when a worker dies (most often for memory).
    """
    if workers <= 1:
        state = make_state()
        for item in items:
            yield function(state, item)
        return
    waiting: deque[Future[R]] = deque()
    # spawn: a fork of a process that has run torch or tokenizer threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(make_state,)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(_call, function, item))  # type: ignore[arg-type]
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise PandaError(
                f"A worker process died (often for lack of memory); run again with fewer workers than {workers}."
            ) from None
        finally:
            for future in waiting:
                future.cancel()

"""Work on chunks in several threads, results in order, few of them in memory. NumPy, zstd and sha256 let go of the interpreter."""

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
#: More would need more than 300 MB with float32 weights.
MAX_WORKERS = 3


def worker_count() -> int:
    """Threads that chunks are shared among."""
    return min(MAX_WORKERS, os.cpu_count() or 1)


def keep_freed_memory() -> None:
    """Have the C library keep freed chunks for the next ones (glibc; elsewhere nothing happens).

    Else it gives them back to the system, which clears and maps them again a hundred times a second. For a process
    of its own: the command line calls it, the library does not.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None).mallopt
        allocator(-3, 1 << 26)  # M_MMAP_THRESHOLD: chunks come from the heap
        allocator(-1, 1 << 27)  # M_TRIM_THRESHOLD: which keeps this much


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Generator[Result, None, None]:
    """`function` of each item, in the items' order; at most `workers` + 1 results wait. An error ends it."""
    count = workers or worker_count()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

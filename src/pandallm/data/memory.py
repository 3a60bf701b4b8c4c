"""Memory of processes that make and drop large arrays all the time."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: glibc takes no larger threshold for arrays of their own mapping.
_MAPPED_BYTES = 32 << 20
_TRIMMED_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system at once (glibc; else nothing).

    Otherwise each batch of a shard gets fresh pages for its arrays, and faulting them in took 7 % of the CPU time of a build.
    """
    import pyarrow as pa

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIMMED_BYTES)
    pa.set_memory_pool(pa.system_memory_pool())


@contextmanager
def collector_off() -> Iterator[None]:
    """For work that forms no cycles but holds many rows: the collector would walk through them again and again (4 % of a build)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

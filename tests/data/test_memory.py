"""What shard tasks do to the process's memory: the collector rests and comes back, freed memory is used again."""

import gc
import subprocess
import sys

import pytest

from pandallm.data.memory import collector_off


def test_the_collector_rests_and_comes_back_also_after_an_error() -> None:
    assert gc.isenabled()
    with collector_off():
        assert not gc.isenabled()
        with collector_off():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(RuntimeError), collector_off():
        raise RuntimeError
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is asked")
def test_freed_arrays_are_used_again() -> None:
    """Page faults of a loop that makes and drops an array of 8 MB: each time anew before, once after."""
    script = """
import resource, sys
import numpy as np
from pandallm.data.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
a = np.ones(1 << 20); del a
before = faults()
for _ in range(20):
    a = np.ones(1 << 20); b = np.ones(1 << 20); del a, b
print(faults() - before)
"""
    asked = {
        way: int(subprocess.run([sys.executable, "-c", script, way], check=True, capture_output=True, text=True).stdout)
        for way in ("keep", "as it is")
    }
    assert asked["keep"] < 10_000 < asked["as it is"]

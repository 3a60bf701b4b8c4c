"""What a manifest says of the machine."""

import subprocess
import sys

from pandallm.pipeline.machine import peak_memory_gib

CODE = """
import subprocess, sys
from pandallm.pipeline.machine import peak_memory_gib
own = peak_memory_gib()
subprocess.run([sys.executable, "-c", "x = bytearray(400 * 2**20)"], check=True)
print(own, peak_memory_gib())
"""


def test_the_peak_is_that_of_the_largest_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    own, with_child = map(float, done.stdout.split())
    assert own < 0.3
    assert 0.39 <= with_child < 0.6
    assert (peak_memory_gib() or 0) > 0

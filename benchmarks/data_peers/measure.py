"""CPU time and memory of a command and all its descendants, and what a job kept."""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_peers.corpus import truth

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans of a job (fork servers, Ray) come to us, and with them their CPU time


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(fields[1])].append(int(path.parent.name))
    return found


def _peaks(root: int, peaks: dict[int, int]) -> None:
    """Raise `peaks` (process -> largest resident set seen, bytes) for all below `root`."""
    children, todo = _children(), [root]
    while todo:
        process = todo.pop()
        todo += children.get(process, [])
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peaks[process] = max(peaks.get(process, 0), int(line.split()[1]) * 1024)


def run_job(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> dict[str, float]:
    """{"cpu" (seconds, user and system, of all processes), "wall", "peak_process_mb" (largest of any one process)}."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    log = cwd / "job.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=out, stderr=subprocess.STDOUT
        )
        peaks: dict[int, int] = {}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                _peaks(process.pid, peaks)

        thread = threading.Thread(target=watch)
        thread.start()
        code = process.wait()
        done.set()
        thread.join()
    wall = time.perf_counter() - began
    while True:  # orphans
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    if code:
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}:\n{log.read_text(errors='replace')[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "peak_process_mb": max(peaks.values(), default=0) / 1e6}


def judge(folder: Path, kept: set[int]) -> dict[str, Any]:
    """Recall of planted copies by kind, and planted pairs below Jaccard .8 of which one was removed all the same.

    A pair counts as found when not both of its documents are kept.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for pair in truth(folder):
        kind = pair.kind
        if kind == "edited":
            j = pair.jaccard
            kind = "jaccard_.9_up" if j >= 0.9 else "jaccard_.8_.9" if j >= 0.8 else "below_.8"
        counts[kind][0] += 1
        counts[kind][1] += not (pair.copy in kept and pair.of in kept)
    found = {kind: {"pairs": n, "found": hit, "share": hit / n} for kind, (n, hit) in sorted(counts.items())}
    return {"kept": len(kept), "planted": found}

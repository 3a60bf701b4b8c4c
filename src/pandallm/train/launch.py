"""Several processes on this machine train one stage: started, listened to, stopped and, where one fails, ended together.

Each process is `python -m pandallm.train.worker`: its job comes on stdin, which stays open as a sign that this process lives;
it tells what happens on stdout, a JSON object a line. Nothing here touches the process group; it only lends the ranks
a store to find each other by, as torchrun does.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.progress import SILENT, Progress, Task
from pandallm.train.stop import stop_signals

#: After one process has failed, the others may still say why they fail for so many seconds.
GRACE_SECONDS = 3.0
_KINDS: dict[str, type[PandaError]] = {"BadInput": BadInput, "Interrupted": Interrupted, "PandaError": PandaError}


class WorkerError(Exception):
    """An error in a process that is none of ours to explain; its traceback is in the notes (`--debug` shows it)."""


@dataclass
class _Rank:
    """One process and what it has told."""

    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    facts: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None  # its last words
    ended: bool = False


@dataclass
class _Shown:
    """What rank 0 reports, shown by the caller's progress."""

    progress: Progress
    open: dict[int, tuple[Task, contextlib.ExitStack]] = field(default_factory=dict)

    def take(self, message: Mapping[str, Any]) -> None:
        if "say" in message:
            self.progress.say(message["say"])
        elif "open" in message:
            stack = contextlib.ExitStack()
            self.open[message["task"]] = stack.enter_context(self.progress.task(*message["open"])), stack
        elif "advance" in message:
            self.open[message["task"]][0].advance(*message["advance"])
        elif "close" in message:
            self.open.pop(message["close"])[1].close()

    def close(self) -> None:
        for _, stack in self.open.values():
            stack.close()


def launch_stage(
    processes: int,
    start: Path,
    packs: Path,
    spec: Any,
    work: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
    name: str = "train",
    **arguments: Any,
) -> dict[str, Any]:
    """`train_stage` with these arguments on `processes` ranks of this machine. Returns rank 0's facts.

    SIGTERM and SIGINT are handed on. Raises what a rank raised, rank 0's before others'; PandaError where one was killed
    (the others are ended within seconds, the last checkpoint stays); WorkerError for an unexpected error in one.
    """
    seconds = None if deadline is None else deadline - time.monotonic()
    job = {"start": start, "packs": packs, "spec": spec, "work": work, "device": device, "name": name, **arguments}
    job |= {"until": None if seconds is None else time.time() + seconds, "threads": threads}
    shown = _Shown(progress)
    told: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    ranks: list[_Rank] = []
    with stop_signals() as stopped, _meeting_place() as place:
        try:
            for number in range(processes):
                environment = {**os.environ, **place, **_rank_environment(number, processes, threads)}
                ranks.append(_start(number, environment, job, told))
            _listen(ranks, told, shown, stopped)
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    rank.process.kill()
            for rank in ranks:
                rank.process.wait()
                if rank.process.stdin:
                    with contextlib.suppress(OSError):
                        rank.process.stdin.close()
            shown.close()
    if failures := [r for r in ranks if r.failed]:
        raise _error(min(failures, key=_order), name, processes, stopped)
    return dict(ranks[0].facts or {})


@contextlib.contextmanager
def _meeting_place() -> Any:
    """A store that the ranks find each other by, on a free port of this machine; the environment that says where."""
    from torch._C._distributed_c10d import TCPStore

    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    if sys.platform == "linux" and "GLOO_SOCKET_IFNAME" not in os.environ:
        place["GLOO_SOCKET_IFNAME"] = "lo"  # gloo looks for the host's name otherwise, which may lead nowhere
    yield place
    del store


def _rank_environment(number: int, processes: int, threads: int | None) -> dict[str, str]:
    import torch

    rank, size = str(number), str(processes)
    threads = threads or max(1, torch.get_num_threads() // processes)
    return {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": str(threads),
    }  # fmt: skip


def _start(number: int, environment: dict[str, str], job: dict[str, Any], told: "queue.Queue[Any]") -> _Rank:
    log = tempfile.TemporaryFile()  # noqa: SIM115  as long as its process
    process = subprocess.Popen(
        [sys.executable, "-m", "pandallm.train.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
    )
    rank = _Rank(number, process, log)
    with contextlib.suppress(BrokenPipeError):  # it is dead already, which its end tells
        assert process.stdin
        # A pickle, but from this process to its own child.
        pickle.dump(job, process.stdin)
        process.stdin.flush()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            told.put((number, json.loads(line)))
        process.wait()
        told.put((number, None))

    threading.Thread(target=read, name=f"rank {number}", daemon=True).start()
    return rank


def _listen(ranks: list[_Rank], told: "queue.Queue[Any]", shown: _Shown, stopped: list[str]) -> None:
    """Until every process has ended, or one has failed and the others had their time."""
    until: float | None = None
    handed_on = False
    while not all(r.ended for r in ranks) and (until is None or time.monotonic() < until):
        if stopped and not handed_on:
            handed_on = True
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    rank.process.send_signal(signal.SIGTERM)
        try:
            number, message = told.get(timeout=0.1)
        except queue.Empty:
            continue
        rank = ranks[number]
        if message is None:
            rank.ended = True
            if rank.facts is None and rank.failed is None:
                rank.failed = {"kind": "Dead"}
        elif "facts" in message:
            rank.facts = message["facts"]
        elif "kind" in message:
            rank.failed = message
        else:
            shown.take(message)
        # A stop is saved by all ranks first, however long that takes.
        if until is None and rank.failed and rank.failed["kind"] != "Interrupted":
            until = time.monotonic() + GRACE_SECONDS


def _order(rank: _Rank) -> tuple[int, int]:
    """The failure that explains the others comes first: a sentence, a death, an unexpected error, a lost connection."""
    assert rank.failed
    kinds = [*_KINDS, "Dead", "Unexpected", "Lost"]
    first = 0 if rank.failed["kind"] in _KINDS else kinds.index(rank.failed["kind"])
    return first, rank.number


def _error(rank: _Rank, name: str, processes: int, stopped: list[str]) -> Exception:
    assert rank.failed
    kind, code = rank.failed["kind"], rank.process.returncode
    who = f"process {rank.number} of {processes}"
    if kind in _KINDS:
        return _KINDS[kind](rank.failed["text"])
    if kind == "Unexpected":
        error = WorkerError(f"{name}, {who}: {rank.failed['text']}")
        error.add_note(rank.failed["traceback"])
        return error
    if stopped and code == -signal.SIGTERM:
        return Interrupted(f"{name} was stopped by {stopped[0]} while it started: run the same command again to go on.")
    if kind == "Lost":
        how = "lost the others"
    elif code < 0:
        more = ", as a full memory does" if -code == signal.SIGKILL else ""
        how = f"was killed by signal {-code} ({signal.Signals(-code).name}{more})"
    else:
        how = f"ended with exit code {code}"
    last = _last_line(rank.log)
    return PandaError(
        f"{name}: {who} {how}{f' ({last})' if last else ''}; the others were ended. Run the same command again to go on "
        "from the last checkpoint."
    )


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:160] if lines else ""

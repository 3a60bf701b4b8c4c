"""Several runs of a study at once: local processes that stay warm, one run each at a time."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pandallm.errors import Busy, Interrupted, PandaError
from pandallm.progress import Progress, Task
from pandallm.study.folder import Job, write_outcome

#: Seconds that a stopped worker may take to save what it is training.
GRACE = 120.0
#: Seconds between two messages about the same bar.
TICK = 0.5


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Job | None = None
    making: set[str] = field(default_factory=set)  # stages that its run makes
    began: float = 0.0


class Shared:
    """Which stages are made and which are being made: two runs that would train the same one are not started together."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        self._keys: dict[str, set[str]] = {}
        self._training: set[str] = set()

    def keys(self, job: Job) -> set[str]:
        from pandallm.pipeline.graph import stage_graph

        if job.name not in self._keys:
            nodes = stage_graph(job.arm.run(job.seed, job.study))
            self._keys[job.name] = {node.identity for node in nodes}
            self._training |= {node.identity for node in nodes if node.kind == "train"}
        return self._keys[job.name]

    def training(self, stages: set[str]) -> bool:
        """Whether any of these stages is one that trains."""
        return bool(stages & self._training)

    def missing(self, job: Job) -> set[str]:
        """Stages that a run has to make, as far as is known."""
        return self.keys(job) - self._made

    def finished(self, job: Job) -> None:
        self._made |= self.keys(job)

    def pick(self, waiting: deque[Job], making: set[str]) -> Job | None:
        """Take the first run that makes nothing of what is being made; failing that, one that shares only data with it.

        Data is soon done, and until then such a run comes back as busy. None where all would train what is being trained.
        """
        common = {job.name: self.missing(job) & making for job in waiting}
        job = next((j for j in waiting if not common[j.name]), None)
        job = job or next((j for j in waiting if not self.training(common[j.name])), None)
        if job is not None:
            waiting.remove(job)
        return job


def run_in_processes(waiting: deque[Job], count: int, progress: Progress, task: Task, summary: Any) -> None:
    """Run all of `waiting` in `count` processes. SIGINT and SIGTERM stop them in good order: raises Interrupted."""
    from pandallm.study.run import note_end
    from pandallm.train.stop import stop_signals

    context = multiprocessing.get_context("spawn")  # a fork of a process that has run torch may hang
    shared, workers = Shared(), list[_Worker]()
    bars: dict[str, Any] = {}
    with stop_signals() as stopped:
        try:
            workers += [_worker(context, i, count) for i in range(count)]
            while waiting or any(w.job for w in workers):
                if stopped:
                    raise Interrupted(f"Stopped by {stopped[0]}; run the same command again to go on.")
                _start(waiting, workers, shared)
                for pipe in wait([w.pipe for w in workers], timeout=0.2):
                    worker = next(w for w in workers if w.pipe is pipe)
                    job = worker.job
                    try:
                        kind, *content = worker.pipe.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        died = f"Its process died (exit code {worker.process.exitcode}); it may lack memory: take fewer --jobs."
                        if job is None:
                            raise PandaError(f"A worker of the study is gone before it had a run. {died}") from None
                        write_outcome(job, "failed", time.time() - worker.began, died)
                        _draw(bars, progress, job.name, None, 0.0, "")
                        note_end(job, died, progress, task, summary)
                        number = workers.index(worker)
                        workers[number] = _worker(context, number, count)
                        break  # the list of pipes is another one now
                    if kind == "say":
                        progress.say(content[0])
                    elif kind == "bar":
                        _draw(bars, progress, *content)
                    elif job is not None:
                        worker.job, worker.making = None, set()
                        if kind == "busy":
                            waiting.append(job)
                        elif kind == "interrupted":
                            raise Interrupted(content[0])
                        else:
                            if content[0] is None:
                                shared.finished(job)
                            note_end(job, content[0], progress, task, summary)
        finally:
            for bar in bars.values():
                bar[0].__exit__(None, None, None)
            _end(workers)


def _worker(context: Any, number: int, count: int) -> _Worker:
    """A new process, waiting for its first run."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, number, count), name=f"study worker {number}")
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _start(waiting: deque[Job], workers: list[_Worker], shared: Shared) -> None:
    """Give each idle worker a run."""
    for worker in workers:
        if worker.job is None:
            job = shared.pick(waiting, set().union(*(w.making for w in workers)))
            if job is not None:
                worker.job, worker.making, worker.began = job, shared.missing(job), time.time()
                worker.pipe.send(job)


def _draw(bars: dict[str, Any], progress: Progress, name: str, total: float | None, amount: float, note: str) -> None:
    """Move a worker's bar; `total` None takes it away."""
    if total is None:
        if name in bars:
            bars.pop(name)[0].__exit__(None, None, None)
        return
    if name not in bars:
        manager = progress.task(name, total)
        bars[name] = (manager, manager.__enter__())
    bars[name][1].advance(amount, note)


def _end(workers: list[_Worker]) -> None:
    """No worker outlives the study: idle ones leave, busy ones are told to save and leave, then killed."""
    for worker in workers:
        if worker.job is None:
            with suppress(OSError):
                worker.pipe.send(None)
        elif worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for worker in workers:
        while worker.process.is_alive() and time.monotonic() < until:
            with suppress(EOFError, OSError):  # a full pipe would keep it from leaving
                while worker.pipe.poll(0.05):
                    worker.pipe.recv()
            worker.process.join(0.05)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


# In the worker ----------------------------------------------------------------------------------------------------------------------


class _Remote:
    """Progress that is shown by the study's process: lines, and the bar of the whole run."""

    def __init__(self, pipe: Connection, label: str, lines: Any) -> None:
        self._pipe, self._label, self._lines = pipe, label, lines

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        whole = name == "whole run" and bool(total)
        bar = _RemoteBar(self._pipe, self._label, total if whole else None)
        try:
            yield bar
        finally:
            if whole:
                self._pipe.send(("bar", self._label, None, 0.0, ""))

    def say(self, text: str) -> None:
        if self._lines.keep(text):
            self._pipe.send(("say", f"{self._label}: {text}"))


class _RemoteBar:
    def __init__(self, pipe: Connection, label: str, total: float | None) -> None:
        self._pipe, self._label, self._total = pipe, label, total
        self._held, self._last = 0.0, 0.0

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._held += amount
        if self._total and time.monotonic() - self._last > TICK:
            self._last = time.monotonic()
            self._pipe.send(("bar", self._label, self._total, self._held, note))
            self._held = 0.0


def _work(pipe: Connection, number: int, count: int) -> None:
    """A worker's life: runs, one after the other, until None comes or the study's process is gone."""
    parent = os.getppid()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    cores = _divide(number, count)
    from pandallm.study.run import PATIENCE, Lines, run_job

    lines = Lines()
    while True:
        try:
            job: Job | None = pipe.recv()
        except (EOFError, OSError):
            return
        if job is None:
            return
        try:
            answer: tuple[str, Any] = ("done", run_job(job, _Remote(pipe, job.name, lines), cores))
        except Busy as e:
            time.sleep(PATIENCE)  # the study gives another run, or this one again
            answer = ("busy", str(e))
        except (Interrupted, KeyboardInterrupt) as e:
            answer = ("interrupted", str(e) or "Stopped; run the same command again to go on.")
        pipe.send(answer)
        if answer[0] == "interrupted":
            return


def _divide(number: int, count: int) -> int:
    """A share of the machine, before torch is imported: cores (their number), and a GPU where there are some (not run on a GPU yet)."""
    cores = max(1, (os.cpu_count() or 1) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return cores


def _leave_with(parent: int) -> None:
    """When the study's process is gone, stop as if told to: what is being trained is saved."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)

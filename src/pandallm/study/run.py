"""Run a study: every arm and seed through the store, in this process or in several."""

import re
import shlex
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pandallm.errors import Busy, Interrupted, PandaError
from pandallm.progress import SILENT, Progress, Task
from pandallm.store import write_text
from pandallm.study.folder import Job, outcome, stamp, write_outcome

#: Seconds between attempts while everything left is in another process's hands.
PATIENCE = 2.0


@dataclass
class Summary:
    """What a call of `run_study` found and did: numbers of runs, and the failures as `arm, seed: sentence`."""

    done: int = 0
    reused: int = 0
    failed: list[str] = field(default_factory=list)


class Lines:
    """What is said of one run among many: warnings, once each whatever the run; not which stages are done, the bars show that."""

    _STAGES = re.compile(r": (done in [\d.]+ s|reused from the store)$")

    def __init__(self) -> None:
        self._said: set[str] = set()

    def keep(self, text: str) -> bool:
        """Whether a run's line is to be shown."""
        new = text not in self._said and not self._STAGES.search(text)
        self._said.add(text)
        return new


class Printed:
    """Progress for a log: lines, no bars."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        with SILENT.task(name, total, unit) as task:
            yield task

    def say(self, text: str) -> None:
        print(text, flush=True)


class Labelled:
    """Progress of one run among many: its lines carry the run's name."""

    def __init__(self, inner: Progress, label: str, lines: Lines) -> None:
        self._inner, self._label, self._lines = inner, label, lines

    @contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator[Task]:
        with self._inner.task(name, total, unit) as task:
            yield task

    def say(self, text: str) -> None:
        if self._lines.keep(text):
            self._inner.say(f"{self._label}: {text}")


def run_job(job: Job, progress: Progress = SILENT, cores: int | None = None) -> str | None:
    """Run one arm with one seed; note what came of it. Returns the sentence of its failure, None where it went well.

    cores: threads and data workers where the recipe does not say how many. Raises Interrupted (saved, to be gone on with) and Busy (another process is at it).
    """
    from pandallm.pipeline.run import Run

    began = time.time()
    recipe = job.arm.run(job.seed, job.study)
    if cores:
        runtime = recipe.runtime
        own = {"threads": runtime.threads or cores, "workers": runtime.workers or cores}
        recipe = recipe.model_copy(update={"runtime": runtime.model_copy(update=own)})
    run = Run(recipe, progress, command=shlex.join(["panda", *sys.argv[1:]]))
    try:
        run.execute()
    except (Busy, Interrupted, KeyboardInterrupt):
        raise
    except PandaError as e:
        write_outcome(job, "failed", time.time() - began, str(e))
        return str(e)
    except Exception as e:
        write_text(job.folder / "error.txt", traceback.format_exc())
        sentence = f"Unexpected {type(e).__name__}: {e} (see {job.folder / 'error.txt'})."
        write_outcome(job, "failed", time.time() - began, sentence)
        return sentence
    write_outcome(job, "complete", time.time() - began)
    return None


def run_study(
    jobs: Sequence[Job], progress: Progress = SILENT, *, processes: int = 1, cores: int | None = None
) -> Summary:
    """Run what is not complete yet; an arm that fails does not stop the others. Several calls may share the work, also on several machines.

    cores: threads of each run where it runs in this process and its recipe does not say how many. Raises Interrupted when a run was stopped; what is done stays done.
    """
    summary = Summary()
    waiting = deque[Job]()
    for job in jobs:
        if _done(job):
            summary.reused += 1
        else:
            waiting.append(job)
    with progress.task("study", len(jobs), "runs") as task:
        task.advance(summary.reused)
        if processes > 1 and len(waiting) > 1:
            from pandallm.study.workers import run_in_processes

            run_in_processes(waiting, min(processes, len(waiting)), progress, task, summary)
        else:
            _run_here(waiting, progress, task, summary, cores)
    return summary


def _run_here(waiting: deque[Job], progress: Progress, task: Task, summary: Summary, cores: int | None = None) -> None:
    lines = Lines()
    before = {job.name: stamp(job) for job in waiting}
    held_up = 0  # jobs in a row that other processes hold
    while waiting:
        job = waiting.popleft()
        if _done(job):  # another process has done it since
            summary.reused += 1
            task.advance(1)
            continue
        found = outcome(job.folder, job.arm.digest)
        if found["state"] == "failed" and stamp(job) != before[job.name]:  # another process has just tried it
            note_end(job, found["error"], progress, task, summary)
            continue
        try:
            failure = run_job(job, Labelled(progress, job.name, lines), cores)
        except Busy as e:
            waiting.append(job)
            held_up += 1
            if held_up == len(waiting):
                progress.say(f"{job.name}: waiting: {e}")
            if held_up >= len(waiting):
                time.sleep(PATIENCE)
            continue
        held_up = 0
        note_end(job, failure, progress, task, summary)


def note_end(job: Job, failure: str | None, progress: Progress, task: Task, summary: Summary) -> None:
    """Count a run that has ended, and say what came of it."""
    if failure is None:
        summary.done += 1
        seconds = outcome(job.folder, job.arm.digest)["seconds"]
        progress.say(f"{job.name}: complete in {seconds or 0:.1f} s")
    else:
        summary.failed.append(f"{job.name}: {failure}")
        progress.say(f"{job.name}: failed: {failure}")
    task.advance(1)


def _done(job: Job) -> bool:
    return bool(outcome(job.folder, job.arm.digest)["state"] == "complete")


def states(jobs: Sequence[Job]) -> dict[str, Any]:
    """How many runs are in which state."""
    counts: dict[str, int] = {}
    for job in jobs:
        state = outcome(job.folder, job.arm.digest)["state"]
        counts[state] = counts.get(state, 0) + 1
    return counts

"""A study on a cluster: its runs as a Slurm array (submitit), or as Ray tasks.

Every node sees the recipe's data, the store and the runs under the same paths, on a file system with locks (flock).
"""

import importlib
import os
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, Busy, Interrupted, PandaError
from pandallm.progress import SILENT, Progress, Task
from pandallm.study.folder import Job, outcome, stamp, study_folder, write_outcome
from pandallm.study.run import PATIENCE, Printed, Summary, note_end, run_job, run_study
from pandallm.study.workers import Shared

#: Minutes that Slurm gives a task unless --sbatch time=.. says otherwise, and how often one whose time is up goes on in a new job.
MINUTES, MAX_TIMEOUTS = 24 * 60, 100

# Slurm ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayTask:
    """What a task of the array does: all runs that no other task has in hand. Pickled by submitit."""

    jobs: tuple[Job, ...]
    count: int
    folder: str

    def __call__(self, number: int) -> list[str]:
        """Runs, beginning at another place in each task, so that tasks rarely want the same stage; returns the failures."""
        os.chdir(self.folder)
        cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) or None
        first = number * len(self.jobs) // self.count
        return run_study([*self.jobs[first:], *self.jobs[:first]], Printed(), cores=cores).failed

    def checkpoint(self, number: int) -> Any:
        """Where Slurm's time is up: submitit puts the task into the queue again, and it goes on there."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self, number)


def run_on_slurm(
    jobs: Sequence[Job],
    count: int,
    options: Mapping[str, str | int],
    progress: Progress = SILENT,
    *,
    cluster: str = "slurm",
) -> Summary:
    """Submit `count` tasks that share the runs, and wait for them; the logs are in the study's folder, under slurm/.

    options: of sbatch, by name. Killed meanwhile, the array goes on without this process. `cluster` "local" runs the tasks here, for tests.
    Raises BadInput where there is no Slurm or submitit, PandaError where the array cannot be submitted, Interrupted on Ctrl-C.
    """
    try:
        submitit: Any = importlib.import_module("submitit")
    except ImportError:
        raise BadInput("--slurm needs submitit, which is not installed; pip install 'pandallm[slurm]'.") from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise BadInput("--slurm: there is no sbatch here; run this on a node from which jobs are submitted.")
    summary = Summary(reused=sum(_complete(job) for job in jobs))
    if summary.reused == len(jobs):
        return summary
    logs = study_folder(jobs[0].arm, jobs[0].study) / "slurm"
    try:
        executor = submitit.AutoExecutor(folder=logs / "%j", cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
    except RuntimeError as e:
        raise BadInput(f"--slurm: {e}") from None
    executor.update_parameters(name=f"panda-{jobs[0].study}", **_parameters(submitit, options))
    before = {job.name: stamp(job) for job in jobs}
    try:
        array = executor.map_array(ArrayTask(tuple(jobs), count, os.getcwd()), range(count))
    except (submitit.core.utils.FailedJobError, OSError) as e:
        raise PandaError(f"The array could not be submitted: {' '.join(str(e).split())}") from None
    name = array[0].job_id.split("_")[0]
    progress.say(f"Slurm job {name}: {count} tasks; logs in {logs}")
    shown = set[str]()
    with progress.task("study", len(jobs), "runs") as task:
        try:
            while True:
                over = all(job.done() for job in array)
                for job in jobs:
                    if job.name not in shown and _complete(job):
                        shown.add(job.name)
                        task.advance(1)
                if over:
                    break
                time.sleep(PATIENCE)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Slurm job {name} goes on; stop it with scancel {name}; the same command, or panda study report {logs.parent}, shows what is done."
            ) from None
    for job in jobs:
        found = outcome(job.folder, job.arm.digest)
        if found["state"] == "failed" and stamp(job) != before[job.name]:
            summary.failed.append(f"{job.name}: {found['error']}")
    summary.done = sum(_complete(job) for job in jobs) - summary.reused
    left = len(jobs) - summary.reused - summary.done - len(summary.failed)
    if left and not summary.failed:
        raise PandaError(f"The array ended before all runs: {_why(array)}; logs in {logs}; run again to go on.")
    if left:
        progress.say(
            f"The array ended before {left} of {len(jobs)} runs: {_why(array)}; logs in {logs}; run again to go on."
        )
    return summary


def sbatch_options(given: Sequence[str]) -> dict[str, str | int]:
    """`partition=gpu` and the like. Raises BadInput."""
    options: dict[str, str | int] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if not equals or not name or not value:
            raise BadInput(f"--sbatch: '{text}' is no option of sbatch; write it as name=value, such as time=120.")
        options[name] = int(value) if value.isdigit() else value
    return options


def _parameters(submitit: Any, options: Mapping[str, str | int]) -> dict[str, Any]:
    """Options as submitit takes them: what it knows by name, the rest as they are."""
    known = submitit.SlurmExecutor._valid_parameters()
    other = {name: value for name, value in options.items() if name not in known}
    named = {f"slurm_{name}": value for name, value in options.items() if name in known}
    named |= {} if "time" in options else {"timeout_min": MINUTES}
    return named | ({"slurm_additional_parameters": other} if other else {})


def _why(array: Sequence[Any]) -> str:
    """What the first task that failed says, in one line."""
    for job in array:
        if (error := job.exception()) is not None:
            return str(error).strip().splitlines()[-1].rstrip(".")
    return "its tasks are gone"


def _complete(job: Job) -> bool:
    return bool(outcome(job.folder, job.arm.digest)["state"] == "complete")


# Ray --------------------------------------------------------------------------------------------------------------------------------


def run_on_ray(jobs: Sequence[Job], count: int, address: str | None, progress: Progress = SILENT) -> Summary:
    """`count` runs at once as Ray tasks, each with its share of the cluster's cores (and GPUs: not run on one yet).

    Processes stay warm between runs; runs that would train the same stage are not started together. address: of a running cluster; None
    starts Ray here. Raises BadInput where Ray is missing or does not answer, Interrupted on SIGINT and SIGTERM.
    """
    from pandallm.data.ray_engine import RayEngine
    from pandallm.train.stop import stop_signals

    waiting = deque(job for job in jobs if not _complete(job))
    summary, shared = Summary(reused=len(jobs) - len(waiting)), Shared()
    if not waiting:
        return summary
    with RayEngine(address) as engine, progress.task("study", len(jobs), "runs") as task, stop_signals() as stopped:
        count = min(count, len(waiting), engine.workers)
        cores = max(1, engine.workers // count)
        ray = importlib.import_module("ray")
        gpus = ray.cluster_resources().get("GPU", 0) / count
        share = {"num_cpus": cores, "num_gpus": int(gpus) if gpus >= 1 else gpus, "max_retries": 0}
        call = ray.remote(**share)(_in_ray)
        running: dict[Any, tuple[Job, set[str], float]] = {}
        task.advance(summary.reused)
        try:
            while waiting or running:
                if stopped:
                    raise Interrupted(f"Stopped by {stopped[0]}; run the same command again to go on.")
                while len(running) < count:
                    job = shared.pick(waiting, set().union(*(m for _, m, _ in running.values())))
                    if job is None:
                        break
                    running[call.remote(job, os.getcwd(), cores)] = (job, shared.missing(job), time.time())
                ready, _ = ray.wait(list(running), timeout=0.5)
                for reference in ready:
                    job, _, began = running.pop(reference)
                    _ended(ray, reference, job, began, waiting, shared, (progress, task, summary))
        finally:
            for reference in running:
                ray.cancel(reference)  # as SIGINT: what is being trained is saved
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=120.0)
    return summary


def _ended(
    ray: Any,
    reference: Any,
    job: Job,
    began: float,
    waiting: deque[Job],
    shared: Shared,
    told: tuple[Progress, Task, Summary],
) -> None:
    """Note what came of a task; one that found its work in other hands waits again."""
    try:
        kind, text = ray.get(reference)
    except (ray.exceptions.RayError, KeyboardInterrupt) as e:
        kind, text = "done", f"Its Ray worker died ({type(e).__name__}); it may lack memory: take fewer --jobs."
        write_outcome(job, "failed", time.time() - began, text)
    if kind == "interrupted":
        raise Interrupted(text)
    if kind == "busy":
        waiting.append(job)
        return
    if text is None:
        shared.finished(job)
    note_end(job, text, *told)


def _in_ray(job: Job, folder: str, cores: int) -> tuple[str, str | None]:
    """One run, in a Ray worker."""
    os.chdir(Path(folder))
    try:
        return "done", run_job(job, SILENT, cores)
    except Busy as e:
        time.sleep(PATIENCE)
        return "busy", str(e)
    except (Interrupted, KeyboardInterrupt) as e:
        return "interrupted", str(e) or "Stopped; run the same command again to go on."

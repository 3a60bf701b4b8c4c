"""Studies on Slurm and Ray: with submitit's local executor and a local Ray; no cluster is asked."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.store import write_json
from pandallm.study import cluster
from pandallm.study.arms import make_arms
from pandallm.study.cluster import ArrayTask, run_on_ray, run_on_slurm, sbatch_options
from pandallm.study.folder import Job, all_jobs, outcome, write_outcome, write_study
from pandallm.study.run import run_study
from tests.study.studies import SMALL, study

#: One arm that is complete in seconds, one that fails.
LEVELS = {"right": {}, "broken": {"world.scored_people": 1000}}
without_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.chdir(tmp_path)
    file = study(tmp_path, {"x": {"levels": LEVELS}}, set=SMALL, seeds=1)
    arms = make_arms(file, ["runtime.threads=1", "runtime.workers=1"])
    write_study(file, arms)
    return all_jobs(arms, file)


class Heard:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, name: str, total: float | None, unit: str = "") -> Any:
        from pandallm.progress import SILENT

        return SILENT.task(name, total, unit)

    def say(self, text: str) -> None:
        self.said.append(text)


@without_submitit
def test_an_array_shares_the_runs_and_tells_the_failures(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    heard = Heard()
    summary = run_on_slurm(jobs, 2, {"time": 30, "partition": "none"}, heard, cluster="local")
    assert (summary.done, summary.reused) == (1, 0)
    assert len(summary.failed) == 1
    assert summary.failed[0].startswith("x-broken, seed 1: world: 1036 people were asked for")
    assert "2 tasks; logs in" in heard.said[0]
    assert outcome(jobs[0].folder, jobs[0].arm.digest)["state"] == "complete"
    logs = "".join(p.read_text() for p in (jobs[0].folder.parents[1] / "slurm").rglob("*_log.out"))
    assert "x-right, seed 1: complete in" in logs
    # What is complete asks for no array.
    assert run_on_slurm(jobs[:1], 2, {}, cluster="local").reused == 1


def test_a_run_that_another_process_has_just_tried_is_not_tried_again(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandallm.study import run as module

    write_outcome(jobs[1], "failed", 1.0, "an old failure")
    tried = []

    def run(job: Job, *rest: Any) -> str | None:
        tried.append(job.name)
        write_outcome(jobs[1], "failed", 1.0, "it broke elsewhere")  # meanwhile, in another process
        write_outcome(job, "complete", 1.0)
        write_json(job.folder / "scores.json", {})
        return None

    monkeypatch.setattr(module, "run_job", run)
    summary = run_study(jobs)
    assert tried == ["x-right, seed 1"]
    assert summary.failed == ["x-broken, seed 1: it broke elsewhere"]
    # A failure of an earlier call is tried again.
    assert run_study(jobs[1:]).done == 1


def test_tasks_begin_at_different_runs(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    firsts = []

    def first(given: list[Job], *rest: Any, cores: int | None) -> Any:
        firsts.append((given[0].name, len(given), cores))
        return cluster.Summary()

    monkeypatch.setattr(cluster, "run_study", first)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    for number in range(2):
        assert ArrayTask(tuple(jobs), 2, os.getcwd())(number) == []
    assert firsts == [("x-right, seed 1", 2, 3), ("x-broken, seed 1", 2, 3)]


@without_submitit
def test_options_reach_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that submitit would hand to sbatch; Slurm's programs are empty files here."""
    import submitit

    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    executor = submitit.AutoExecutor(folder=tmp_path / "%j", cluster="slurm")
    options = sbatch_options(["partition=gpu", "--cpus-per-task=4", "time=1:00:00", "reservation=night", "nice=5"])
    executor.update_parameters(name="panda-x", **cluster._parameters(submitit, options))
    script = executor._executor._make_submission_file_text("true", "uid")
    for line in ("job-name=panda-x", "partition=gpu", "cpus-per-task=4", "time=1:00:00", "reservation=night", "nice=5"):
        assert f"#SBATCH --{line}\n" in script
    executor.update_parameters(**cluster._parameters(submitit, {}))
    assert "#SBATCH --time=1440\n" in executor._executor._make_submission_file_text("true", "uid")


def test_bad_input(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"--sbatch: 'gpu' is no option of sbatch; write it as name=value"):
        sbatch_options(["gpu"])
    monkeypatch.setenv("PATH", "/nowhere")
    if importlib.util.find_spec("submitit"):
        with pytest.raises(BadInput, match="there is no sbatch here"):
            run_on_slurm(jobs, 2, {})
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(BadInput, match=r"pip install 'pandallm\[slurm\]'"):
        run_on_slurm(jobs, 2, {})


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray on this machine, started once for the tests below."""
    ray = pytest.importorskip("ray", reason="ray is not installed (pandallm[ray])")
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="error", include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_here")
def test_ray_runs_a_study_and_tells_the_failures(jobs: list[Job]) -> None:
    heard = Heard()
    summary = run_on_ray(jobs, 2, None, heard)
    assert (summary.done, summary.reused) == (1, 0)
    assert summary.failed[0].startswith("x-broken, seed 1: world: 1036 people were asked for")
    assert any(text.startswith("x-right, seed 1: complete in") for text in heard.said)
    assert outcome(jobs[0].folder, jobs[0].arm.digest)["state"] == "complete"
    assert run_on_ray(jobs[:1], 2, None).reused == 1


@pytest.mark.usefixtures("ray_here")
def test_a_ray_worker_that_dies_is_a_run_that_failed(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(job: Job, folder: str, cores: int) -> tuple[str, str | None]:
        if job.name == "x-broken, seed 1":
            os._exit(9)
        return "done", None

    monkeypatch.setattr(cluster, "_in_ray", dies)
    summary = run_on_ray(jobs, 2, None)
    assert summary.done == 1
    assert len(summary.failed) == 1
    assert summary.failed[0].startswith(
        "x-broken, seed 1: Its Ray worker died (WorkerCrashedError); it may lack memory"
    )
    assert outcome(jobs[1].folder, jobs[1].arm.digest)["state"] == "failed"

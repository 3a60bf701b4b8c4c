"""Workers of a study: what they are given, and what becomes of one that dies."""

import os
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pandallm.study import workers
from pandallm.study.arms import make_arms
from pandallm.study.folder import all_jobs, outcome, write_outcome, write_study
from pandallm.study.run import run_study
from tests.study.studies import SMALL, study

LR = {"lr": {"field": "stages.instruct.optimizer.lr", "levels": [0.0001, 0.001, 0.01]}}


def dies_on_a_run(pipe: Any, number: int, count: int) -> None:
    """A worker that does nothing, and dies at one arm and seed."""
    while (job := pipe.recv()) is not None:
        if job.name == "lr-0.001, seed 1":
            os._exit(9)
        write_outcome(job, "complete", 0.1)
        (job.folder / "scores.json").write_text("{}")
        pipe.send(("say", f"{job.name}: here"))
        pipe.send(("bar", job.name, 10.0, 5.0, "half"))
        pipe.send(("done", None))


class Heard:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, name: str, total: float | None, unit: str = "") -> Any:
        from pandallm.progress import SILENT

        return SILENT.task(name, total, unit)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_worker_that_dies_is_a_run_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "_work", dies_on_a_run)
    file = study(tmp_path, LR, set=SMALL)
    arms = make_arms(file)
    write_study(file, arms)
    jobs, heard = all_jobs(arms, file), Heard()
    summary = run_study(jobs, heard, processes=2)
    assert summary.done == 5
    assert summary.failed == [
        "lr-0.001, seed 1: Its process died (exit code 9); it may lack memory: take fewer --jobs."
    ]
    states = [outcome(job.folder, job.arm.digest)["state"] for job in jobs]
    assert states.count("complete") == 5
    assert states[1] == "failed"
    assert "lr-0.01, seed 2: here" in heard.said


def test_runs_that_share_a_training_wait_and_those_that_share_data_do_not() -> None:
    class Ours(workers.Shared):
        def keys(self, job: Any) -> set[str]:
            self._training = {"base", "x", "y", "z"}
            return {"first": {"text", "base", "x"}, "second": {"text", "base", "y"}, "third": {"text", "z"}}[job.name]

    class Pipe:
        def __init__(self) -> None:
            self.sent: list[str] = []

        def send(self, job: Any) -> None:
            self.sent.append(job.name)

    jobs = [SimpleNamespace(name=name) for name in ("first", "second", "third")]
    waiting, pipes, shared = deque[Any](jobs), [Pipe(), Pipe(), Pipe()], Ours()
    crew: list[Any] = [workers._Worker(None, pipe) for pipe in pipes]  # type: ignore[arg-type]
    workers._start(waiting, crew, shared)
    assert [pipe.sent for pipe in pipes] == [["first"], ["third"], []], "the second would train the same base"
    crew[0].job, crew[0].making = None, set()
    shared.finished(jobs[0])  # type: ignore[arg-type]
    workers._start(waiting, crew, shared)
    assert pipes[0].sent == ["first", "second"]


def test_each_worker_gets_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert workers._divide(3, 4) == 4
    assert (os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("4", "5")

"""Running studies: shared stages, failures, going on, several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import Busy, PandaError
from pandallm.pipeline.graph import stage_keys
from pandallm.store import read_json, read_jsonl, write_json
from pandallm.study.arms import make_arms
from pandallm.study.folder import Job, all_jobs, outcome, write_study
from pandallm.study.load import StudyFile
from pandallm.study.report import write_study_report
from pandallm.study.run import Summary, run_study
from pandallm.study.verify import verify_study
from pandallm.study.workers import Shared
from tests.study.studies import SMALL, study

LR = {"lr": {"field": "stages.instruct.optimizer.lr", "levels": [0.0001, 0.01]}}


def jobs_of(file: StudyFile) -> list[Job]:
    arms = make_arms(file, ["runtime.threads=1", "runtime.workers=1"])
    write_study(file, arms)
    return all_jobs(arms, file)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyFile, Summary]:
    """A small study of three arms, one of which fails, and two seeds, with its results; the working folder, the study, what running it
    returned."""
    folder = tmp_path_factory.mktemp("study")
    levels = {"slow": {}, "fast": {"stages.instruct.optimizer.lr": 0.01}, "broken": {"world.scored_people": 1000}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        file = study(folder, {"lr": {"levels": levels}}, set=SMALL)
        summary = run_study(jobs_of(file))
        write_study_report(folder / "runs" / "small")
        return folder, file, summary


def test_an_arm_that_fails_does_not_stop_the_others(finished: tuple[Path, StudyFile, Summary]) -> None:
    folder, _, summary = finished
    assert (summary.done, summary.reused) == (4, 0)
    assert len(summary.failed) == 2
    assert summary.failed[0].startswith("lr-broken, seed 1: world: 1036 people were asked for")
    results, written = write_study_report(folder / "runs" / "small")
    assert results["runs"] == {"total": 6, "complete": 4, "failed": 2}
    assert all(path.is_file() for path in written)
    text = (folder / "runs" / "small" / "report.md").read_text(encoding="utf-8")
    assert "4 of 6 runs are complete (2 failed)" in text
    assert "Failed: lr-broken, seed 2: world: 1036 people" in text


def test_arms_share_all_that_they_do_not_change(finished: tuple[Path, StudyFile, Summary]) -> None:
    folder, _, _ = finished
    for seed in (1, 2):
        stages = read_json(folder / "runs" / "small" / "arms" / f"lr-fast-seed{seed}" / "manifest.json")["stages"]
        made = [s["name"] for s in stages if not s["reused"]]
        assert made == ["train instruct", "evaluate instruct on microworld-facts", "evaluate instruct on bits per byte"]


def test_what_is_complete_is_not_run_again(
    finished: tuple[Path, StudyFile, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, _ = finished
    monkeypatch.chdir(folder)
    manifest = folder / "runs" / "small" / "arms" / "lr-slow-seed1" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    summary = run_study([j for j in jobs_of(file) if j.arm.levels["lr"] != "broken"])
    assert (summary.done, summary.reused) == (0, 4)
    assert manifest.stat().st_mtime_ns == before
    # Another recipe under the same name is another run.
    assert outcome(manifest.parent, "other")["state"] == "missing"


def test_the_results_are_those_of_the_rows(finished: tuple[Path, StudyFile, Summary]) -> None:
    folder, _, _ = finished
    results = read_json(folder / "runs" / "small" / "results.json")
    runs = folder / "runs" / "small" / "arms"

    def accuracy(arm: str, seed: int) -> float:
        rows = [r for r in read_jsonl(runs / f"{arm}-seed{seed}" / "rows.jsonl") if r["model"] == "instruct"]
        return sum(r["correct"] for r in rows) / len(rows)

    def bits(arm: str, seed: int) -> float:
        rows = read_jsonl(runs / f"{arm}-seed{seed}" / "bits_per_byte.jsonl")
        chosen = [r for r in rows if r["model"] == "instruct" and r["language"] == "zh"]
        return float(sum(r["bits"] for r in chosen) / sum(r["bytes"] for r in chosen))

    slow, fast = results["arms"][0], results["arms"][1]
    assert (slow["name"], fast["name"]) == ("lr-slow", "lr-fast")
    for arm in (slow, fast):
        for seed in (1, 2):
            assert arm["values"]["headline"]["by_seed"][str(seed)] == pytest.approx(
                accuracy(arm["name"], seed), abs=1e-6
            )
            assert arm["values"]["bits-zh"]["by_seed"][str(seed)] == pytest.approx(bits(arm["name"], seed), abs=1e-6)
    effect = next(e for e in results["effects"] if e["metric"] == "bits-zh" and e["level"] == "fast")
    assert effect["by_seed"]["1"] == pytest.approx(bits("lr-fast", 1) / bits("lr-slow", 1) - 1, abs=1e-6)
    assert results["primary"] == "headline"
    first = results["contrasts"][0]
    assert first["b"] == {"lr": "fast"}
    assert first["verdict"] == "inconclusive"
    missing = results["contrasts"][1]
    assert (missing["b"], missing["effect"], missing["verdict"]) == ({"lr": "broken"}, None, "inconclusive")
    forgetting = {(r["arm"], r["model"], r["language"]): r for r in results["forgetting"]}
    assert forgetting["lr-slow", "base", "zh"]["change"] is None
    assert forgetting["lr-slow", "pretrain", "zh"]["mean"] == forgetting["lr-fast", "pretrain", "zh"]["mean"]
    assert {r["source"] for r in results["bits_per_byte"]} >= {"wiki2019zh", "english"}


def test_runs_that_would_make_the_same_stage_are_not_started_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(study(tmp_path, LR, set=SMALL))
    first, second, other_seed, _ = jobs
    shared = Shared()
    assert shared.missing(first) & shared.missing(second)
    shared.finished(first)
    keys = stage_keys(second.arm.run(second.seed, second.study))
    assert shared.missing(second) == {
        keys[n] for n in keys if n == "train instruct" or n.startswith("evaluate instruct")
    }
    assert not shared.missing(second) & shared.missing(other_seed)


def panda_study(folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pandallm",
        "study",
        "run",
        str(folder / "study.yaml"),
        "runtime.threads=1",
        *arguments,
    ]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_processes_make_the_same_as_one_and_survive_kills(
    finished: tuple[Path, StudyFile, Summary], tmp_path: Path
) -> None:
    folder, _, _ = finished
    levels = {"slow": {}, "fast": {"stages.instruct.optimizer.lr": 0.01}}
    study(tmp_path, {"lr": {"levels": levels}}, set=SMALL)
    command = panda_study(tmp_path, "--jobs", "2", "--quiet")
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = (read_json(f / "runs" / "small" / "results.json") for f in (tmp_path, folder))
    assert ours["runs"] == {"total": 4, "complete": 4}
    assert ours["arms"][0]["values"] == theirs["arms"][0]["values"]
    assert ours["arms"][1]["values"] == theirs["arms"][1]["values"]


def test_work_in_other_hands_is_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandallm.study import run as module

    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(study(tmp_path, LR, set=SMALL))
    tried: list[str] = []

    def busy_once(job: Job, *rest: Any) -> None:
        tried.append(job.name)
        if tried.count(job.name) == 1 and job is jobs[0]:
            raise Busy("another process is at it")

    monkeypatch.setattr(module, "run_job", busy_once)
    summary = run_study(jobs)
    assert summary.done == 4
    assert tried == [*(j.name for j in jobs), jobs[0].name]


def test_verify_rebuilds_a_study_and_notices_a_changed_number(finished: tuple[Path, StudyFile, Summary]) -> None:
    folder = finished[0] / "runs" / "small"
    write_study_report(folder)
    facts = verify_study(folder)
    assert (facts["runs"], facts["rows"] > 0, facts["numbers"] > 100) == (4, True, True)
    results = read_json(folder / "results.json")
    results["contrasts"][0]["effect"] += 0.01
    write_json(folder / "results.json", results)
    with pytest.raises(PandaError, match=r"contrasts.*effect"):
        verify_study(folder)
    write_study_report(folder)
    results = read_json(folder / "results.json")
    assert results["budgets"][0]["bytes"] > results["budgets"][0]["tokens"] > 0
    assert results["budgets"][0]["flops"] > 0
    results["budgets"][0]["tokens"] += 1
    write_json(folder / "results.json", results)
    with pytest.raises(PandaError, match=r"budgets.*tokens"):
        verify_study(folder)
    write_study_report(folder)

"""Checkpoints are whole or not there, and go on bit for bit."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pandallm.train.checkpoint as checkpoint
from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.train.checkpoint import Checkpoints, SaveFailed, complete_checkpoints, difference
from pandallm.train.shards import write_shard
from pandallm.train.world import World
from tests.train.tiny import AfterSteps, count_steps, weights

ALONE = World(torch.device("cpu"))


def trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        one_step(model, optimizer, torch.randn(2, 4))
    return model, optimizer


def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    model(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def save(work: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *steps: int, keep: int = 2) -> None:
    checkpoints = Checkpoints(work, ALONE, keep)
    for step in steps:
        checkpoints.save(model, optimizer, step, {"note": "x"})
    checkpoints.wait()


def names(work: Path) -> list[int]:
    return [int(p.name.removeprefix("step-")) for p in complete_checkpoints(work)]


def test_round_trip_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 3)
    other, fresh = trained(1)
    found = Checkpoints(tmp_path, ALONE)
    assert found.latest == {"step": 3, "note": "x"}
    found.load(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    batch = torch.randn(2, 4)
    one_step(model, optimizer, batch)
    one_step(other, fresh, batch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_what_is_written_is_the_moment_of_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop trains on while the write is held back."""
    import threading

    model, optimizer = trained(0)
    before = [p.detach().clone() for p in model.parameters()]
    gate = threading.Event()

    def held(*arguments: Any) -> None:
        assert gate.wait(30)
        write_shard(*arguments)

    monkeypatch.setattr(checkpoint, "write_shard", held)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.save(model, optimizer, 1, {})
    one_step(model, optimizer, torch.randn(2, 4))
    assert names(tmp_path) == []
    gate.set()
    checkpoints.wait()
    other, fresh = trained(1)
    Checkpoints(tmp_path, ALONE).load(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="a priority of its own has a thread on Linux alone")
def test_the_write_steps_back_behind_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(path: Path, parts: dict[str, Any]) -> None:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        write_shard(path, parts)

    monkeypatch.setattr(checkpoint, "write_shard", noted)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    save(tmp_path, *trained(0), 3)
    assert seen == [max(10, before)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    assert names(tmp_path) == [3]


def test_memory_got_ahead_is_what_a_save_fills(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.prepare(model, optimizer)
    checkpoints.save(model, optimizer, 1, {})
    ahead = {key: buffer.data_ptr() for key, buffer in checkpoints._buffers.items()}
    assert len(ahead) == 4 * 4  # each weight, two moments and a step count
    one_step(model, optimizer, torch.randn(2, 4))
    checkpoints.save(model, optimizer, 2, {})
    checkpoints.wait()
    assert {key: buffer.data_ptr() for key, buffer in checkpoints._buffers.items()} == ahead
    other, fresh = trained(1)
    Checkpoints(tmp_path, ALONE).load(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_random_state_is_restored(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    wanted = torch.rand(3)
    Checkpoints(tmp_path, ALONE).load(model, optimizer)
    assert torch.equal(torch.rand(3), wanted)


def test_the_newest_are_kept_and_half_written_ones_are_not_read(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1, 2, 3)
    assert names(tmp_path) == [2, 3]
    newest = tmp_path / ".checkpoints" / "step-00000003"
    shard = newest / "shard-00000.safetensors"
    tensors = shard.read_bytes()
    shard.write_bytes(tensors[:-1])
    assert names(tmp_path) == [2]
    shard.write_bytes(tensors)
    (newest / "complete.json").unlink()
    assert names(tmp_path) == [2]
    save(tmp_path, model, optimizer, 3)  # over the half-written one
    assert names(tmp_path) == [2, 3]
    save(tmp_path, model, optimizer, 4, keep=1)
    assert names(tmp_path) == [4]


def test_what_killed_saves_left_is_removed(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    root = tmp_path / ".checkpoints"
    shutil.copytree(root / "step-00000001", root / ".part-00000002")
    shutil.copytree(root / "step-00000001", root / "step-00000003")
    for left in (root / ".part-00000002", root / "step-00000003"):
        (left / "complete.json").unlink()
    Checkpoints(tmp_path, ALONE)
    assert [p.name for p in root.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("where", ["write_shard", "fsync_folder", "write_json", "os.replace"])
def test_a_full_disk_costs_that_checkpoint_only(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on with a sentence, the last one stays, and nothing of the failed one takes room."""
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    told: list[str] = []

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, ALONE, tell=told.append)
    with monkeypatch.context() as broken:
        broken.setattr(f"pandallm.train.checkpoint.{where}", full)
        checkpoints.save(model, optimizer, 2, {})
        with pytest.raises(SaveFailed, match="No space left on device"):
            checkpoints.wait()
        assert [p.name for p in (tmp_path / ".checkpoints").iterdir()] == ["step-00000001"]
        checkpoints.save(model, optimizer, 3, {})
        while checkpoints._thread and checkpoints._thread.is_alive():
            checkpoints._thread.join()
    checkpoints.save(model, optimizer, 4, {})
    assert told == [
        "The checkpoint after step 3 was not saved (No space left on device); the one after step 1 stays. Training goes on."
    ]
    checkpoints.wait()
    assert names(tmp_path) == [1, 4]


def test_a_bug_in_a_save_is_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(0)
    monkeypatch.setattr(checkpoint, "write_shard", lambda *a: 1 / 0)
    checkpoints = Checkpoints(tmp_path, ALONE)
    checkpoints.save(model, optimizer, 2, {})
    with pytest.raises(ZeroDivisionError):
        checkpoints.save(model, optimizer, 3, {})


def test_the_step_that_was_loaded_is_not_written_again(tmp_path: Path) -> None:
    """It would have to be removed first, and might be the only one."""
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    marker = tmp_path / ".checkpoints" / "step-00000001" / "complete.json"
    before = marker.stat().st_ino
    checkpoints = Checkpoints(tmp_path, ALONE, keep=1)
    checkpoints.load(model, optimizer)
    checkpoints.save(model, optimizer, 1, {})
    checkpoints.wait()
    assert marker.stat().st_ino == before


def test_frozen_parameters_are_not_saved(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    model[0].requires_grad_(False)  # type: ignore[index]
    save(tmp_path, model, optimizer, 1)
    other, fresh = trained(1)
    with pytest.raises(BadInput, match=r"0\.bias is in only one"):
        Checkpoints(tmp_path, ALONE).load(other, fresh)
    other[0].requires_grad_(False)  # type: ignore[index]
    frozen = other[0].weight.clone()  # type: ignore[index]
    Checkpoints(tmp_path, ALONE).load(other, fresh)
    assert torch.equal(other[0].weight, frozen)  # type: ignore[index]
    assert torch.equal(other[1].weight, model[1].weight)  # type: ignore[index]


def rank(work: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """That of one of two ranks, in this process: they meet on the file system alone."""
    monkeypatch.setattr(World, "largest", lambda self, n: n)
    return Checkpoints(work, World(torch.device("cpu"), number, 2))


def test_a_rank_that_writes_nothing_costs_that_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    monkeypatch.setattr(checkpoint, "SHARD_PATIENCE", 0.05)
    checkpoints = rank(tmp_path, 0, monkeypatch)
    checkpoints.save(model, optimizer, 2, {})
    with pytest.raises(SaveFailed, match=r"shard-00001.*not written"):
        checkpoints.wait()
    assert names(tmp_path) == [1]


def test_ranks_wait_until_the_checkpoint_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(0)
    main, other = (rank(tmp_path, i, monkeypatch) for i in range(2))
    other.save(model, optimizer, 2, {})
    assert other._thread is not None
    other._thread.join(0.2)
    assert other._thread.is_alive()
    main.save(model, optimizer, 2, {"note": "x"})
    for one in (other, main):
        one.wait()
    assert names(tmp_path) == [2]
    files = sorted(p.name for p in (tmp_path / ".checkpoints" / "step-00000002").iterdir())
    assert files == ["complete.json", "shard-00000.safetensors", "shard-00001.safetensors", "state.json"]


@pytest.mark.parametrize("ended", [0, 1])
def test_no_rank_waits_for_one_that_has_ended(tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is free: as after any death of its process."""
    model, optimizer = trained(0)
    ranks = [rank(tmp_path, i, monkeypatch) for i in range(2)]
    left = ranks[1 - ended]
    left.save(model, optimizer, 2, {})
    assert left._thread is not None
    left._thread.join(0.2)
    assert left._thread.is_alive()
    ranks[ended].close()
    with pytest.raises(SaveFailed, match="not written by its rank" if ended else "did not complete"):
        left.wait()


@pytest.mark.parametrize("failing", [0, 1])
def test_no_rank_waits_for_one_whose_disk_is_full(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(0)
    ranks = [rank(tmp_path, i, monkeypatch) for i in range(2)]

    def full(path: Path, parts: Any) -> None:
        if f"{failing:05d}" in path.name and "00000002" in str(path):
            path.write_bytes(b"some of it")
            raise OSError(28, "No space left on device")
        write_shard(path, parts)

    monkeypatch.setattr(checkpoint, "write_shard", full)
    for one in ranks:
        one.save(model, optimizer, 2, {})
    for number, one in enumerate(ranks):
        with pytest.raises(SaveFailed, match="No space" if number == failing else "not"):
            one.wait()
    assert [p.name for p in tmp_path.rglob("shard-*")] == []
    for one in ranks:
        one.save(model, optimizer, 3, {})
    for one in ranks:
        one.wait()
    assert names(tmp_path) == [3]


@pytest.mark.parametrize("seen_at_last", [True, False])
def test_ranks_go_on_from_the_same_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen_at_last: bool
) -> None:
    """The other rank sees the checkpoint after step 2, this one's machine does so late, or never."""
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1, 2)
    monkeypatch.setattr(checkpoint, "SEEN_SECONDS", 0.1)
    looks, real = list[int](), complete_checkpoints

    def late(work: Path) -> list[Path]:
        looks.append(1)
        return real(work) if seen_at_last and len(looks) > 1 else real(work)[:1]

    monkeypatch.setattr(checkpoint, "complete_checkpoints", late)
    answers = iter([0, 2])  # the first barrier, then the newest step of all

    def largest(self: World, number: int) -> int:
        answer = next(answers, None)
        return number if answer is None else max(number, answer)

    monkeypatch.setattr(World, "largest", largest)
    other = World(torch.device("cpu"), 1, 2)
    if seen_at_last:
        assert Checkpoints(tmp_path, other).latest == {"step": 2, "note": "x"}
    else:
        with pytest.raises(PandaError, match="Not every process sees the checkpoint after step 2"):
            Checkpoints(tmp_path, other)


def full_disk(*arguments: Any, **named: Any) -> None:
    raise OSError(28, "No space left on device")


class Told:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, text: str) -> None:
        self.sentences.append(text)

    def task(self, name: str, total: float | None, unit: str = "") -> Any:
        return contextlib.nullcontext(self)

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        pass


def test_the_last_step_is_saved_before_the_model(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full only then costs no step."""
    whole = stage("whole")
    with monkeypatch.context() as broken:
        broken.setattr("pandallm.model.folder.save_model", full_disk)
        with pytest.raises(PandaError, match=r"could not be written to .*work \(.*No space left.*make room and run"):
            stage()
    assert names(tmp_path / "work")[-1] == 20
    assert not (tmp_path / "work" / "model").exists()
    assert stage() == whole | {"resumed_from": [20]}
    assert all(torch.equal(t, weights(tmp_path / "work")[n]) for n, t in weights(tmp_path / "whole").items())


def test_training_goes_on_without_its_checkpoints(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "write_shard", full_disk)
    told = Told()
    assert stage(progress=told, save_every_seconds=1e-9)["steps"] == 20
    assert (tmp_path / "work" / "model").is_dir()
    assert told.sentences[0] == (
        "The checkpoint after step 1 was not saved (No space left on device); there is no older one. Training goes on."
    )
    assert told.sentences[-1].endswith("there is no older one. The model is written all the same.")


def test_no_room_for_the_log_stops_in_a_sentence(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandallm.train.watch import Watch

    with monkeypatch.context() as broken:
        broken.setattr("pandallm.train.loop.SAVE_SHARE", 1e9)
        read, done = Watch.read, count_steps(broken)
        broken.setattr(Watch, "read", lambda self: full_disk() if len(done) == 6 else read(self))
        with pytest.raises(PandaError, match=r"no room is left on the disk of .*work: make room"):
            stage(save_every_seconds=1e-9)
    assert names(tmp_path / "work")[-1] == 5
    assert stage()["resumed_from"] == [5]


def test_a_stop_that_cannot_be_saved_says_so(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        stage(deadline=AfterSteps(count_steps(monkeypatch), 5))
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "write_shard", full_disk)
        with pytest.raises(
            PandaError, match=r"after step 8 of 20\. The checkpoint after step 8 was not saved .*step 5 stays"
        ):
            stage(deadline=AfterSteps(count_steps(monkeypatch), 3))
    assert stage()["resumed_from"] == [5]


def test_a_stop_waits_for_the_save_under_way(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while a slow disk takes the checkpoint before: that one and its own are whole when the stage leaves."""

    def slow(path: Path, parts: Any) -> None:
        if "00000001" in str(path):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        write_shard(path, parts)

    monkeypatch.setattr(checkpoint, "write_shard", slow)
    with pytest.raises(Interrupted, match="SIGTERM"):
        stage(save_every_seconds=1e-9)
    saved = names(tmp_path / "work")
    assert len(saved) == 2
    assert saved[0] == 1
    assert stage()["resumed_from"] == [saved[1]]


def test_difference_names_what_changed() -> None:
    before = {"optimizer": {"lr": 0.001, "kind": "adamw"}, "seed": 1, "gone": {}}
    now = {"optimizer": {"lr": 0.002, "kind": "adamw"}, "seed": 1, "new": None}
    assert difference(before, before) == []
    assert difference(before, now) == [
        "optimizer.lr was 0.001, is now 0.002",
        "gone was {}, is now absent",
        "new was absent, is now null",
    ]

"""Processes that `panda run` starts: what they say, how they stop, what becomes of the others when one dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.train.launch import WorkerError, launch_stage
from tests.train.tiny import metrics, tiny_spec, weights, write_packs

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")


@pytest.fixture
def launch(base: Path, packs: Path, tmp_path: Path) -> Callable[..., Any]:
    """`launch(**arguments)`: two processes train the tiny base."""

    def run(**arguments: Any) -> Any:
        given = {"start": base, "packs": packs, "work": tmp_path / "work", "spec": tiny_spec()} | arguments
        where = [given.pop(k) for k in ("start", "packs", "spec", "work")]
        return launch_stage(2, *where, **({"seed": 1, "device": "cpu", "threads": 1} | given))

    return run


def children(pid: int) -> list[int]:
    """Processes that `pid` started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(p) for p in (thread / "children").read_text().split()]
    return found


def workers(pid: int) -> dict[int, int]:
    """rank -> process id of the ranks that `pid` started."""
    ranks = {}
    for child in children(pid):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if b"pandallm.train.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                ranks[int(next(e for e in environment if e.startswith(b"RANK=")).removeprefix(b"RANK="))] = child
    return ranks


class AtStep:
    """Progress that calls `act` once, when `step` steps are done, and keeps what is said."""

    def __init__(self, step: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.step, self.act = step, act
        self.steps, self.said, self.notes = 0.0, list[str](), list[str]()
        self.tasks: list[tuple[Any, ...]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def task(self, name: str, total: float | None, unit: str = "") -> Iterator["AtStep"]:
        self.tasks.append((name, total, unit))
        yield self
        self.tasks.append(("closed",))

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        before, self.steps = self.steps, self.steps + amount
        self.notes += [note] if note else []
        if before < self.step <= self.steps:
            self.act()


def test_a_signal_is_handed_on_and_saved_and_the_next_call_goes_on(
    launch: Callable[..., Any], stage: Callable[..., Any], tmp_path: Path
) -> None:
    stop = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM after step \d+ of 20 and is saved: run the same"):
        launch(progress=stop)
    assert not workers(os.getpid())
    shown = AtStep()
    facts = launch(progress=shown, sharding="shard_all", name="train x")
    assert facts["resumed_from"][0] >= 3
    assert facts["processes"] == 2
    assert facts["sharding"] == "shard_all"
    assert shown.tasks == [("train x", 20, "steps"), ("closed",)]
    assert shown.steps == 20
    assert "train x: going on after step" in shown.said[0]
    assert any("loss" in note for note in shown.notes)
    stage("one")
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "work")
    assert [m["loss"] for m in two] == pytest.approx([m["loss"] for m in one], rel=1e-4)
    assert set(weights(tmp_path / "work")) == set(weights(tmp_path / "one"))


def test_a_killed_rank_ends_the_others_with_one_sentence(launch: Callable[..., Any]) -> None:
    killed: list[float] = []

    def kill() -> None:
        os.kill(workers(os.getpid())[1], signal.SIGKILL)
        killed.append(time.monotonic())

    with pytest.raises(
        PandaError, match=r"^work: process 1 of 2 was killed by signal 9 \(SIGKILL, as a full memory"
    ) as told:
        launch(progress=AtStep(2, kill), name="work")
    assert time.monotonic() - killed[0] < 10
    assert "\n" not in str(told.value)
    assert not workers(os.getpid())


def test_the_sentence_of_the_rank_that_fails_is_the_one_that_is_told(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    examples = [([300, 301, 400], [1, 1, 1])] * 2
    packs = write_packs(tmp_path / "ids", [[0], [1]], examples, batch_sequences=2)
    with pytest.raises(BadInput, match="holds token 400"):
        launch(packs=packs)


def test_an_unexpected_error_names_its_rank_and_keeps_its_traceback_for_debug(launch: Callable[..., Any]) -> None:
    with pytest.raises(WorkerError, match=r"^train, process 0 of 2: AttributeError: ") as told:
        launch(spec=None)
    assert "Traceback" in told.value.__notes__[0]


def test_a_killed_parent_takes_its_ranks_with_it(base: Path, packs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pandallm.train.launch import launch_stage; "
        "from tests.train.tiny import tiny_spec; base, packs, work = map(Path, sys.argv[1:]); "
        "launch_stage(2, base, packs, tiny_spec(), work, seed=1, device='cpu', threads=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(base), str(packs), str(tmp_path / "work")])
    until = time.monotonic() + 60
    while len(ranks := workers(parent.pid)) < 2:
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while any(alive(pid) for pid in ranks.values()):
        assert time.monotonic() < until, "a rank lives on"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether it runs; a dead one that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

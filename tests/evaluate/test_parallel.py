"""Two CPU processes; scripted backends where the model does not matter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.backend import Asked
from pandallm.evaluate.backends import local_backend
from pandallm.evaluate.parallel import ParallelBackend, deal
from tests.evaluate.scripted import never, opened


def questions(n: int, groups: int) -> tuple[list[Asked], list[str]]:
    asked = [Asked(f"passage {i * groups // n} question {i}", ("a", "bb"), (0, 10)) for i in range(n)]
    return asked, [str(i * groups // n) for i in range(n)]


def flat(batches: Iterator[list[tuple[int, Any]]]) -> dict[int, Any]:
    return dict(pair for batch in batches for pair in batch)


@pytest.fixture(scope="module")
def two() -> Iterator[ParallelBackend]:
    backend = opened()
    yield backend
    backend.close()


# -- with the model ---------------------------------------------------------------------------------------------------


def test_two_processes_find_what_one_finds(model_folder: Path) -> None:
    factory = partial(local_backend, str(model_folder), dtype="float32", batch_tokens=256)
    passages = ["小明住在湖边的城里，他养了一只猫。", "小红住在山上。", "The lake is far from here.", "→→→→"]
    asked = [
        Asked(f"{p}\n问题：他住在哪里？{n}\n答案：", (" 湖边", " 山上", " the lake"), (0, len(p)))
        for p in passages
        for n in range(4)
    ]
    groups = [str(i // 4) for i in range(16)]
    one = factory("cpu")
    alone = flat(one.score(asked, groups, never))
    said = flat(one.generate(asked, 6, never, never))
    ends = {i: answer.text[:1] for i, answer in said.items()}
    short = flat(one.generate(asked, 6, lambda i, text: text.startswith(ends[i]), never))
    backend = ParallelBackend(factory, ["cpu", "cpu"], chunk_size=128)
    try:
        assert backend.identity == one.identity
        found = flat(backend.score(asked, groups, never))
        assert sorted(found) == sorted(alone) == list(range(16))
        for i in alone:
            assert found[i].scores == pytest.approx(alone[i].scores, abs=1e-4)
            assert max(range(3), key=found[i].scores.__getitem__) == max(range(3), key=alone[i].scores.__getitem__)
        assert flat(backend.generate(asked, 6, never, never)) == said
        assert flat(backend.generate(asked, 6, lambda i, text: text.startswith(ends[i]), never)) == short
    finally:
        backend.close()


# -- scripted ---------------------------------------------------------------------------------------------------------


def test_passages_stay_together_and_both_processes_work(two: ParallelBackend) -> None:
    asked, groups = questions(40, 10)
    found = flat(two.score(asked, groups, never))
    assert sorted(found) == list(range(40))
    assert all(found[i].scores[:2] == [1.0, 2.0] for i in found)
    by_group = [{found[i].scores[2] for i in range(40) if groups[i] == g} for g in dict.fromkeys(groups)]
    assert all(len(pids) == 1 for pids in by_group)
    assert os.getpid() not in set.union(*by_group)


def test_what_is_done_is_left_out(two: ParallelBackend) -> None:
    asked, groups = questions(12, 4)
    assert sorted(flat(two.score(asked, groups, lambda i: i < 10))) == [10, 11]
    assert flat(two.score(asked, groups, lambda i: True)) == {}
    assert flat(two.score([], [], never)) == {}


def test_generation_ends_when_this_process_says_so(two: ParallelBackend) -> None:
    asked, _ = questions(9, 3)
    found = flat(two.generate(asked, 9, lambda i, text: len(text) >= i, never))
    assert {i: a.text for i, a in found.items()} == {i: str(i) * i for i in range(9)}


def test_cores_are_shared_out(two: ParallelBackend) -> None:
    assert two.identity["omp"] == str(max(1, (os.cpu_count() or 1) // 2))
    backend = opened(devices=["cpu"], threads=3)
    assert backend.identity["omp"] == "3"
    backend.close()


def test_a_worker_that_cannot_open_the_model_says_why() -> None:
    with pytest.raises(BadInput, match=r"^There is no model\.$"):
        opened("open")
    with pytest.raises(PandaError, match=r"The worker on cpu died while it opened the model \(exit code 3\)"):
        opened("die at once")


def test_a_dead_worker_is_told_and_the_rest_is_kept() -> None:
    asked, groups = questions(12, 12)
    place = 11
    asked[place] = Asked("kill", ("a", "bb"))
    backend = opened()
    kept: dict[int, Any] = {}
    with pytest.raises(PandaError, match=r"The worker on (cpu|other) died \(SIGKILL, often for lack of memory\)") as e:
        for batch in backend.score(asked, groups, never):
            kept.update(batch)
    assert f"; {len(kept)} of 12 questions are done and kept: run again" in str(e.value)
    assert place not in kept
    asked[place] = Asked("x", ("a", "bb"))
    rest = flat(backend.score(asked, groups, kept.__contains__))  # the workers begin anew
    backend.close()
    assert sorted({*kept, *rest}) == list(range(12))
    assert not set(kept) & set(rest)


def test_bad_input_and_bugs_of_workers_arrive() -> None:
    asked, groups = questions(4, 4)
    backend = opened(devices=["cpu"])
    with pytest.raises(BadInput, match=r"^The prompt is too long\.$"):
        flat(backend.score([*asked, Asked("bad input", ("a",))], [*groups, "x"], never))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug"):
        flat(backend.score([*asked, Asked("bug", ("a",))], [*groups, "x"], never))
    backend.close()


def test_leaving_early_ends_the_workers() -> None:
    asked, groups = questions(6, 6)
    backend = opened(devices=["cpu", "cpu"])
    processes = [w.process for w in backend._workers]
    started = time.monotonic()
    results = backend.score([*asked, Asked("slow", ("a",))], [*groups, "x"], never)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert all(p.exitcode is not None for p in processes)
    assert time.monotonic() - started < 10


# A shell that starts tests in the background lets them ignore SIGINT, and they hand that on.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.evaluate.scripted import Asked, never, opened
if __name__ == "__main__":
    backend = opened(devices=["cpu", "cpu"])
    print(*[w.process.pid for w in backend._workers], flush=True)
    list(backend.score([Asked("slow", ("a",))], ["x"], never))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_this_process(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    )
    assert process.stdout is not None
    pids = [int(p) for p in process.stdout.readline().split()]
    assert len(pids) == 2
    process.send_signal(sent)
    process.wait(15)
    if sent == signal.SIGKILL:
        pids = pids[1:]  # one sleeps in its job and ends after it
    deadline = time.monotonic() + 15
    while any(_alive(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [p for p in pids if _alive(p)]
    assert not left


def _alive(pid: int) -> bool:
    try:
        # A zombie is dead, too.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -- dealing ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), max_size=20), st.integers(1, 200), st.integers(1, 8))
def test_dealing_keeps_groups_whole_and_portions_small(groups: Any, chunk: int, portions: int) -> None:
    asked, names = [], []
    for g, (length, size) in enumerate(groups):
        for _ in range(size):
            asked.append(Asked("p" * length + "q" * 5, ("a",), (0, length)))
            names.append(str(g))
    dealt = deal(asked, names, chunk, portions)
    assert sorted(i for p in dealt for i in p) == list(range(len(asked)))
    costs = {str(g): length + 6 * size for g, (length, size) in enumerate(groups)}
    limit = min(chunk, sum(costs.values()) / portions)
    seen: list[str] = []
    for portion in dealt:
        of = list(dict.fromkeys(names[i] for i in portion))
        assert len(of) == 1 or sum(costs[g] for g in of) <= limit
        seen += of
    assert len(set(seen)) == len(seen)  # no group in two portions
    assert [costs[g] for g in seen] == sorted((costs[g] for g in seen), reverse=True)

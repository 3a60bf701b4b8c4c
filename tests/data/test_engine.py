"""Shard tasks: the same results in the same order, here, in worker processes and on Ray."""

import errno
import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pandallm.data.engine import LocalEngine, open_engine
from pandallm.errors import BadInput, PandaError


def make_list(first: int) -> list[int]:
    return [first, os.getpid()]


def add(state: list[int], item: int) -> tuple[int, int, int]:
    """(result, calls of this process so far, process)."""
    state.append(item)
    return state[0] + item, len(state) - 2, state[1]


def slow_first(state: object, item: int) -> int:
    time.sleep(0.2 if item == 0 else 0)
    return item


def fail(state: object, item: int) -> int:
    if item == 3:
        raise OSError(errno.ENOSPC, "No space left on device")
    return item


def die(state: object, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def sleep_long(folder: str, item: int) -> int:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
    return item


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_in_order_and_state_once_a_process(workers: int) -> None:
    with LocalEngine(workers) as engine:
        results = list(engine.map(add, range(20), partial(make_list, 100)))
        assert [r for r, _, _ in results] == list(range(100, 120))
        processes = {p for _, _, p in results}
        assert len(processes) <= workers
        assert (os.getpid() in processes) == (workers == 1)
        for process in processes:
            assert [n for _, n, p in results if p == process] == list(
                range(1, 1 + sum(p == process for *_, p in results))
            )
        # Another state is another kind of task; the processes stay.
        again = list(engine.map(add, range(20), partial(make_list, 200)))
        assert [r for r, _, _ in again] == list(range(200, 220))
        assert {p for _, _, p in again} <= processes or len(processes) < workers
        assert list(engine.map(slow_first, range(4), object)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("workers", "ahead", "most"), [(1, None, 1), (2, None, 8), (2, 3, 3)])
def test_few_items_are_under_way(workers: int, ahead: int | None, most: int) -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for i in range(40):
            drawn += 1
            yield i

    with LocalEngine(workers) as engine:
        for done, _ in enumerate(engine.map(add, items(), partial(make_list, 0), ahead=ahead)):
            assert drawn - done <= most


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_comes_out_as_it_is(workers: int) -> None:
    with LocalEngine(workers) as engine:
        results = engine.map(fail, range(9), object)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="No space left") as caught:
            next(results)
        assert caught.value.errno == errno.ENOSPC
        assert list(engine.map(slow_first, range(2), object)) == [0, 1]


def test_a_worker_that_dies_is_told_and_a_new_pool_starts() -> None:
    with LocalEngine(2) as engine:
        with pytest.raises(PandaError, match=r"A worker process died .* fewer workers than 2\."):
            list(engine.map(die, range(4), object))
        assert list(engine.map(slow_first, range(4), object)) == [0, 1, 2, 3]


def run_and_hang(folder: str) -> None:
    list(LocalEngine(2).map(sleep_long, range(2), partial(str, folder)))


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """Otherwise they would hold memory, and write, for ever."""
    import multiprocessing

    parent = multiprocessing.get_context("spawn").Process(target=run_and_hang, args=(str(tmp_path),))
    parent.start()
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = [int(p.name) for p in tmp_path.iterdir()]
    parent.kill()
    parent.join()
    wait_until(lambda: not any(alive(w) for w in workers))


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:  # one that ended but was not waited for is not alive
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ray_that_is_not_installed_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"Ray is not installed; pip install 'pandallm\[ray\]'"):
        open_engine("ray", 2)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:no", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(BadInput, match=rf"runtime\.ray_address: no Ray at {address} \(.*\); start one with"):
        list(open_engine("ray", 2, address).map(slow_first, range(2), object))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (pandallm[ray])")
def test_ray_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of a corpus, its errors, and a task that dies, on Ray started here (15 to 20 seconds)."""
    import ray

    from pandallm.data.clean import clean_corpus
    from pandallm.data.spec import CorpusSpec
    from pandallm.store import digest_folder
    from tests.data.test_clean import prose, write

    # Workers find this file, which no installed package holds, by the path that this process searches.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        engine = open_engine("ray", 1)
        assert engine.workers == 2
        results = list(engine.map(add, range(20), partial(make_list, 100)))
        assert [r for r, _, _ in results] == list(range(100, 120))
        assert os.getpid() not in {p for _, _, p in results}
        with pytest.raises(OSError, match="No space left") as caught:
            list(engine.map(fail, range(9), object))
        assert caught.value.errno == errno.ENOSPC
        corpus = CorpusSpec.model_validate(
            {
                "sources": {"s": {"adapter": "text", "files": "-"}},
                "dedup": {"kind": "minhash"},
                "held_out": {"documents": 5},
                "decontaminate": {"against": ["t"]},
            }
        )
        rows: list[Any] = [{"text": prose(i % 80)[: 120 - i % 3]} for i in range(200)] + ["{broken"]
        path = write(tmp_path / "in.jsonl", rows)
        digests = []
        for name, given in (("local", None), ("ray", engine)):
            out = tmp_path / name
            contamination = {"t": [("q", prose(3)[:40])]}
            facts = clean_corpus(
                "c", corpus, {"s": [path]}, out, contamination=contamination, engine=given, shard_bytes=8_000
            )
            assert set(facts["total"]["dropped"]) == {"duplicate", "contaminated"}
            digests.append(digest_folder(out))
        assert digests[0] == digests[1]
        engine.close()
        assert ray.is_initialized()  # it was started by someone else
    finally:
        ray.shutdown()

"""Several ranks on this machine over gloo: a group of processes that go through a list of jobs one after another."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import Any

#: A function of a module and its keyword arguments; called as function(world, **arguments) on every rank.
Job = tuple[Callable[..., Any], dict[str, Any]]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "transformers", "pandallm.train.loop", "tests.train.tiny"])


def on_ranks(ranks: int, jobs: Sequence[Job], seconds: float = 120) -> list[list[Any]]:
    """What each job returned on each rank: `result[job][rank]`. Raises RuntimeError with the first rank's traceback."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(ranks)]
    processes = [
        _CONTEXT.Process(target=_rank, args=(rank, ranks, port, list(jobs), pipes[rank][1]), daemon=True)
        for rank in range(ranks)
    ]
    for p in processes:
        p.start()
    for _, end in pipes:
        end.close()
    told: list[Any] = []
    try:
        for receive, _ in pipes:
            told.append(receive.recv() if receive.poll(seconds) else "no answer in time")
    except EOFError:
        told.append("the process ended without a word")
    finally:
        for p in processes:
            p.kill()
            p.join()
    wrong = [t for t in told if isinstance(t, str)]
    if wrong:
        raise RuntimeError(wrong[0])
    return [[of_rank[job] for of_rank in told] for job in range(len(jobs))]


def _rank(rank: int, ranks: int, port: int, jobs: list[Job], answer: Any) -> None:
    import torch

    from pandallm.train.world import join_world

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        with join_world("cpu") as world:
            results = []
            for function, arguments in jobs:
                results.append(function(world, **arguments))
                world.barrier()
        answer.send(results)
    except BaseException:
        answer.send(traceback.format_exc())

"""Processes that train on a tiny model and die by SIGKILL: at a moment from outside, or at a chosen place inside a save.

A life is one attempt; the next one goes on from what it left. Also used by `benchmarks/kill_resume.py`.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.train.checkpoint import complete_checkpoints
from tests.train.tiny import first_fit, invented_examples, make_base, tiny_spec, write_packs

_CONTEXT = multiprocessing.get_context("forkserver")
#: Imported once, before the processes fork.
PRELOAD = [
    *("torch", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.nn.attention.varlen", "torch.optim"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto", "transformers.generation"),
    *("transformers.tokenization_utils_tokenizers", "safetensors.torch", "pyarrow.parquet", "tests.train.tiny"),
    *(
        f"pandallm.train.{n}"
        for n in ("loop", "checkpoint", "feed", "fit", "forward", "method", "optimizers", "sharding")
    ),
    *(f"pandallm.{n}" for n in ("train.watch", "model.folder", "model.packed", "data.packs")),
]
#: A rank whose neighbour is gone must have ended by itself after so many seconds. One that has not come yet is waited for half as long.
PATIENCE = 60.0


@dataclass(frozen=True)
class Death:
    """How a life ends. `rank` dies after `seconds`, or once `saved` checkpoints of this life have been seen; or in a save: before
    its `operation`-th file operation (flush, rename, removal; counted over the life), or with half of the `shard`-th shard written."""

    rank: int = 0
    seconds: float | None = None
    saved: int | None = None
    operation: int | None = None
    shard: int | None = None


@dataclass(frozen=True)
class Life:
    """`killed`: whether the death came before the end. `others`: seconds until the other ranks had ended by themselves."""

    killed: bool
    others: float = 0.0


def make_inputs(folder: Path, steps: int) -> tuple[Path, Path]:
    """A tiny base, and packs of so many steps of two rows."""
    examples = invented_examples(16 * steps, seed=3)
    rows = first_fit(examples, 64)[: 2 * steps]
    assert len(rows) == 2 * steps
    return make_base(folder / "base"), write_packs(folder / "packs", rows, examples, batch_sequences=2)


def live(base: Path, packs: Path, work: Path, death: Death | None = None, ranks: int = 1) -> Life:
    """Train until the end or the death. Raises RuntimeError where a process ends otherwise, or does not end."""
    _CONTEXT.set_forkserver_preload(PRELOAD)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    work.parent.mkdir(parents=True, exist_ok=True)
    processes = [
        _CONTEXT.Process(target=_train, args=(base, packs, work, rank, ranks, port, death)) for rank in range(ranks)
    ]
    before = set(complete_checkpoints(work))
    for process in processes:
        process.start()
    dying = processes[death.rank if death else 0]
    try:
        if death and death.seconds is not None:
            dying.join(death.seconds)
            dying.kill()
        elif death and death.saved:
            while dying.is_alive() and len(set(complete_checkpoints(work)) - before) < death.saved:
                time.sleep(0.002)
            dying.kill()
        dying.join(PATIENCE)
        began = time.monotonic()
        killed = dying.exitcode == -signal.SIGKILL
        for process in processes:
            process.join(PATIENCE)
            if process.exitcode is None or (process.exitcode and not killed):
                told = work.with_name(f"{work.name}.told").read_text()
                raise RuntimeError(f"a process ended with {process.exitcode}: {told}")
        return Life(killed, time.monotonic() - began)
    finally:
        for process in processes:
            process.kill()
            process.join()


def same(a: Path, b: Path) -> bool:
    """Whether two finished works hold the same model, bit for bit, and the same numbers of every step."""
    models = [(w / "model" / "model.safetensors").read_bytes() for w in (a, b)]
    steps = [
        [
            {k: v for k, v in json.loads(line).items() if "second" not in k}
            for line in (w / "logs" / "metrics.jsonl").read_text().splitlines()
        ]
        for w in (a, b)
    ]
    return models[0] == models[1] and steps[0] == steps[1]


def _train(base: Path, packs: Path, work: Path, rank: int, ranks: int, port: int, death: Death | None) -> None:
    import torch

    import pandallm.train.loop as loop
    from pandallm.train.world import join_world

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    sys.stderr = open(work.with_name(f"{work.name}.told"), "a")  # noqa: SIM115  until the process ends
    torch.set_num_threads(1)
    if death and death.rank == rank:
        _arm(death)
    loop.SAVE_SHARE = 1e9  # every step, however slow the disk
    spec = tiny_spec(epochs=1, batch_sequences=2)
    with join_world("cpu", join_seconds=PATIENCE / 2) as world:
        loop.train_stage(base, packs, spec, work, seed=1, world=world, threads=1, save_every_seconds=1e-9)


def _arm(death: Death) -> None:
    """Let this process die where `death` says, if in a save."""
    import pandallm.train.checkpoint as checkpoint
    from pandallm.train.shards import write_shard

    done = {"operations": 0, "shards": 0}

    def counted(function: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread().name == "checkpoint":
                done["operations"] += 1
                if done["operations"] == death.operation:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return wrapped

    for name in ("fsync", "replace", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))

    def half(path: Path, parts: Any) -> None:
        done["shards"] += 1
        write_shard(path, parts)
        if done["shards"] == death.shard:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if death.shard is not None:
        checkpoint.write_shard = half  # type: ignore[attr-defined]

"""SIGKILL while held-out text is watched: the same decisions, the same best weights, bit for bit."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

from pandallm.train.spec import TrainSpec
from tests.train.test_held_out import KEEP, lines_of, make_turning
from tests.train.tiny import make_base, tiny_spec

_CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["torch", "transformers", "safetensors.torch", "pyarrow.parquet", "pandallm.train.loop", "tests.train.tiny"]
#: Before which file operation of the main thread (the best weights: flush, rename, marker, removal) each life ends.
DEATHS = (1, 2, 3, 5, 4, 6, 8, 11)


def test_killed_around_the_best_weights_again_and_again(tmp_path: Path) -> None:
    _CONTEXT.set_forkserver_preload(PRELOAD)
    make_base(tmp_path / "base")
    make_turning(tmp_path)
    assert live(tmp_path, "whole", None) == 0
    deaths = [live(tmp_path, "cut", operation) for operation in DEATHS]
    assert deaths.count(-signal.SIGKILL) >= 4
    if deaths[-1] != 0:
        assert live(tmp_path, "cut", None) == 0
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    model = "model/model.safetensors"
    assert (whole / model).read_bytes() == (cut / model).read_bytes()
    assert lines_of(whole) == lines_of(cut)
    assert len(list((cut / ".best").glob("*"))) <= 3
    assert not list((cut / ".best").glob(".part-*"))


def live(root: Path, work: str, operation: int | None) -> int | None:
    """One attempt; its exit code."""
    process = _CONTEXT.Process(target=_train, args=(root, root / work, tiny_spec(**KEEP), operation))
    process.start()
    process.join(120)
    alive = process.is_alive()
    process.kill()
    assert not alive
    return process.exitcode


def _train(root: Path, work: Path, spec: TrainSpec, operation: int | None) -> None:
    import torch

    import pandallm.train.loop as loop

    torch.set_num_threads(1)
    loop.SAVE_SHARE = 1e9  # every step, however slow the disk
    if operation is not None:
        _arm(operation)
    loop.train_stage(
        root / "base/model", root / "packs", spec, work,
        seed=1, device="cpu", threads=1, save_every_seconds=1e-9, held_out=root / "windows",
    )  # fmt: skip


def _arm(operation: int) -> None:
    done = [0]

    def counted(function: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            path = str(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else _name(arguments[0])
            if threading.current_thread() is threading.main_thread() and ".best" in path:
                done[0] += 1
                if done[0] == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return wrapped

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def _name(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else ".best"

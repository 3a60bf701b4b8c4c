"""Who trains with whom: dealt rows, missing ranks, places without torchrun."""

import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from pandallm.errors import BadInput
from pandallm.train.world import BUCKET, World, _buckets, deal_rows, is_lost, join_world, world_size


def test_rows_are_dealt_evenly_each_once_and_in_order() -> None:
    rng = np.random.default_rng(0)
    for ranks in (1, 2, 3, 8):
        lengths = rng.integers(1, 2048, 64)
        dealt = deal_rows(lengths, ranks)
        assert sorted(i for rows in dealt for i in rows) == list(range(64))
        assert all(rows == sorted(rows) for rows in dealt)
        loads = [int(lengths[rows].sum()) for rows in dealt]
        # Graham 1969: at most 4/3 - 1/(3 ranks) of the best; the best is at least the mean.
        assert max(loads) <= (4 / 3) * max(lengths.sum() / ranks, lengths.max())
    assert deal_rows([5, 5], 3) == [[0], [1], []]


def test_alone_nothing_is_asked_of_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world_size() == 1
    with join_world("cpu") as world:
        assert world == World(torch.device("cpu"))
        assert world.main
        assert world.largest(3) == 3
        world.barrier()
    with pytest.raises(BadInput, match="device: tpu is unknown"), join_world("tpu"):
        pass


def test_a_missing_rank_is_named() -> None:
    """Three are wanted, rank 1 never comes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    code = (
        "from pandallm.train.world import join_world\n"
        "try:\n    with join_world('cpu', 4): print('joined')\nexcept Exception as e: print(e)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"RANK": r, "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for r in "02"
    ]
    told = [p.communicate(timeout=90)[0] for p in started]
    assert f"Rank 1 of 3 did not come to 127.0.0.1:{port} within 4 s: start all 3 processes" in told[0]
    assert "joined" not in told[1]


def test_gradients_go_in_bounded_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandallm.train.world as world

    assert BUCKET > 1e6
    monkeypatch.setattr(world, "BUCKET", 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.bfloat16), (30, torch.bfloat16)]
    cut = list(_buckets([torch.zeros(n, dtype=d) for n, d in sizes]))
    assert [[t.numel() for t in bucket] for bucket in cut] == [[4, 6], [1], [2], [30]]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("gloo"), False),
    ],
)
def test_a_lost_connection_is_told_from_other_errors(error: Any, lost: bool) -> None:
    assert is_lost(error) is lost

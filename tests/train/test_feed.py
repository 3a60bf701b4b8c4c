"""A step's share: nothing lost or read twice over ranks, fillers only where layers are cut, order of packs."""

import numpy as np
import pytest
import torch

from pandallm.data.packs import Packs
from pandallm.train.feed import _use, shares, step_share
from pandallm.train.world import World
from tests.train.tiny import invented_examples, write_packs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    """Three steps of six rows of two examples; the second row of each step trains nothing."""
    examples = invented_examples(36, seed=2)
    for row in (1, 7, 13):
        for i in (2 * row, 2 * row + 1):
            examples[i] = (examples[i][0], [0] * len(examples[i][0]))
    rows = [[i, i + 1] for i in range(0, 36, 2)]
    return Packs.open(write_packs(tmp_path_factory.mktemp("packs") / "packs", rows, examples, batch_sequences=6))


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
@pytest.mark.parametrize("micro_batch_tokens", [1, 50, 4096])
def test_ranks_share_a_step_without_loss(opened: Packs, ranks: int, micro_batch_tokens: int) -> None:
    for step in range(opened.steps):
        parts = [step_share(opened, step, micro_batch_tokens, World(CPU, r, ranks)) for r in range(ranks)]
        targets = sorted(t for p in parts for b in p.batches for t in b.targets_M.tolist())
        (whole,) = step_share(opened, step, 10**6, World(CPU)).batches
        assert targets == sorted(whole.targets_M.tolist())
        for p in parts:
            assert p.own == len(p.batches)
            assert all(b.trained_tokens for b in p.batches)
            assert p.tokens == opened.tokens_of_step(step)
            assert p.trained_S.tolist() == parts[0].trained_S.tolist() == whole.trained_by_source.tolist()
            assert p.example_ids == tuple(range(12 * step, 12 * step + 12))


def test_fillers_make_ranks_go_equally_often_through_cut_layers(opened: Packs) -> None:
    parts = [step_share(opened, 0, 1, World(CPU, r, 4, "shard_all")) for r in range(4)]
    assert len({len(p.batches) for p in parts}) == 1
    assert sum(p.own for p in parts) == 5  # six rows, one of which trains nothing
    lengths = [len(opened.row(i).input_ids) for i in range(6) if i != 1]
    for p in parts:
        assert all(b.tokens == min(lengths) for b in p.batches[p.own :])


def test_shares_come_in_order_from_any_step(opened: Packs) -> None:
    for first in (0, 2, 3):
        came = [s.example_ids for s in shares(opened, first, 50, World(CPU))]
        assert came == [step_share(opened, step, 50, World(CPU)).example_ids for step in range(first, 3)]


def test_an_error_in_the_thread_reaches_the_loop(opened: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(step: int) -> np.ndarray:  # type: ignore[type-arg]
        raise OSError("disk gone")

    feed = shares(opened, 0, 50, World(CPU))
    monkeypatch.setattr(Packs, "rows_of_step", lambda self, step: broken(step))
    with pytest.raises(OSError, match="disk gone"):
        next(feed)


def test_a_gpu_without_a_number_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda`, as a single process calls its device: torch takes no such device as the current one."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        _use(torch.device(device))
    assert chosen == [torch.device("cuda:1")]

"""The best weights: whole or not there, and kept as long as wanted."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.errors import PandaError
from pandallm.train.best import BestWeights
from pandallm.train.world import World

WORLD = World(torch.device("cpu"))


def model(value: float) -> torch.nn.Module:
    """A trained matrix, a trained bfloat16 vector and a frozen one."""
    made = torch.nn.Module()
    made.matrix = torch.nn.Parameter(torch.full((3, 2), float(value)))
    made.short = torch.nn.Parameter(torch.full((4,), float(value), dtype=torch.bfloat16))
    made.frozen = torch.nn.Parameter(torch.full((2,), float(value)), requires_grad=False)
    return made


def test_trained_weights_come_back_and_frozen_ones_are_left_alone(tmp_path: Path) -> None:
    best = BestWeights(tmp_path, WORLD)
    best.write(model(1.5), 40)
    other = model(7.0)
    best.load(other, 40)
    assert torch.equal(other.matrix, torch.full((3, 2), 1.5))
    assert torch.equal(other.short, torch.full((4,), 1.5, dtype=torch.bfloat16))
    assert torch.equal(other.frozen, torch.full((2,), 7.0))


def test_only_wanted_steps_stay(tmp_path: Path) -> None:
    best = BestWeights(tmp_path, WORLD)
    for step in (10, 20, 30):
        best.write(model(step), step)
    (tmp_path / ".best" / ".part-00000040").mkdir()
    (tmp_path / ".best" / "step-00000020" / "complete.json").unlink()  # a removal that was killed
    best.keep({10, 20, 50})
    assert [p.name for p in (tmp_path / ".best").iterdir()] == ["step-00000010"]
    with pytest.raises(PandaError, match=r"step-00000020, the best weights, is gone: delete .* and train again"):
        best.load(model(0), 20)


def test_the_same_step_again_replaces_what_was_there(tmp_path: Path) -> None:
    best = BestWeights(tmp_path, WORLD)
    best.write(model(1), 10)
    best.write(model(2), 10)
    other = model(0)
    best.load(other, 10)
    assert torch.equal(other.matrix, torch.full((3, 2), 2.0))


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    best = BestWeights(tmp_path, WORLD)
    best.write(model(1), 10)
    monkeypatch.setattr("pandallm.train.best.write_shard", full)
    with pytest.raises(PandaError, match="is full; make room and run the same command again"):
        best.write(model(2), 20)
    best.keep({10, 20})
    assert [p.name for p in (tmp_path / ".best").iterdir()] == ["step-00000010"]

"""Checkpoints are whole or not there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.train.checkpoint import checkpoint_state, complete_checkpoints, load_checkpoint, save_checkpoint


def trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        model(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_round_trip_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    folder = save_checkpoint(tmp_path, model, optimizer, 3, {"note": "x"})
    other, fresh = trained(1)
    load_checkpoint(folder, other, fresh)
    assert checkpoint_state(folder) == {"step": 3, "note": "x"}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    batch = torch.randn(2, 4)
    for m, o in ((model, optimizer), (other, fresh)):
        m(batch).sum().backward()
        o.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_state_is_restored(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    folder = save_checkpoint(tmp_path, model, optimizer, 1, {})
    wanted = torch.rand(3)
    load_checkpoint(folder, model, optimizer)
    assert torch.equal(torch.rand(3), wanted)


def test_two_are_kept_and_half_written_ones_are_not_read(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, model, optimizer, step, {})
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    newest = tmp_path / ".checkpoints" / "step-00000003"
    tensors = (newest / "state.safetensors").read_bytes()
    (newest / "state.safetensors").write_bytes(tensors[:-1])
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000002"]
    (newest / "state.safetensors").write_bytes(tensors)
    (newest / "complete.json").unlink()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000002"]
    save_checkpoint(tmp_path, model, optimizer, 3, {})  # over the half-written one
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("where", ["save_file", "fsync_folder", "write_json"])
def test_dying_anywhere_in_a_save_leaves_the_last_one(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandallm.train.checkpoint as checkpoint

    model, optimizer = trained(0)
    save_checkpoint(tmp_path, model, optimizer, 1, {})

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, where, die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, model, optimizer, 2, {})
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000001"]

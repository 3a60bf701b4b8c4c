"""Checkpoints of a stage under way: never half-read, the last two kept, no pickle.

`.checkpoints/step-00000040/` holds `state.safetensors` (weights, AdamW moments, random state), `state.json` and, written
last, `complete.json` with the size of the tensors. A folder without it is what a killed save left and is never read.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pandallm.store import read_json, write_json
from pandallm.store.files import fsync_folder

KEEP = 2
_FOLDER, _TENSORS, _STATE, _MARKER = ".checkpoints", "state.safetensors", "state.json", "complete.json"


def save_checkpoint(
    work: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, state: dict[str, Any]
) -> Path:
    """Save everything after `step` steps; `state` is the caller's own JSON. Returns the checkpoint's folder."""
    root = work / _FOLDER
    target, part = root / f"step-{step:08d}", root / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.detach().contiguous()
    save_file(tensors, part / _TENSORS)
    with open(part / _TENSORS, "rb") as f:
        os.fsync(f.fileno())
    write_json(part / _STATE, {"step": step, **state})
    fsync_folder(part)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    fsync_folder(root)
    write_json(target / _MARKER, {"bytes": (target / _TENSORS).stat().st_size})
    for old in complete_checkpoints(work)[:-KEEP]:
        (old / _MARKER).unlink()  # first, so that a killed removal is not read either
        shutil.rmtree(old)
    return target


def complete_checkpoints(work: Path) -> list[Path]:
    """The readable checkpoints, oldest first."""
    found = []
    for folder in sorted((work / _FOLDER).glob("step-*")):
        try:
            size = json.loads((folder / _MARKER).read_text())["bytes"]
            whole = (folder / _TENSORS).stat().st_size == size and (folder / _STATE).is_file()
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if whole:
            found.append(folder)
    return found


def checkpoint_state(folder: Path) -> dict[str, Any]:
    """The JSON saved with it, and "step"."""
    return dict(read_json(folder / _STATE))


def load_checkpoint(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, optimizer and random state back, bit for bit."""
    tensors = load_file(folder / _TENSORS)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    moments: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            moment, _, name = rest.partition(".")
            moments.setdefault(name, {})[moment] = tensor
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            if name in moments:
                optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments[name].items()}

"""The weights of the best step so far: written whole, committed by a marker, and kept as long as a checkpoint names them.

`.best/step-00000040/` holds one safetensors file per rank of the trained weights and, last, `complete.json`.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pandallm.errors import PandaError
from pandallm.store import write_json
from pandallm.store.files import fsync_folder
from pandallm.train.shards import Part, Shards, part_of, write_shard
from pandallm.train.world import World

_MARKER = "complete.json"


class BestWeights:
    """Every rank makes one at the same place and calls the same methods in the same order; ranks share the folder."""

    def __init__(self, work: Path, world: World) -> None:
        self.root, self.world = work / ".best", world

    def write(self, model: torch.nn.Module, step: int) -> None:
        """Keep the trained weights as they are after `step` steps. Raises PandaError where the disk is full."""
        part, target = self.root / f".part-{step:08d}", self._folder(step)
        try:
            part.mkdir(parents=True, exist_ok=True)
            held = {n: part_of(p, self.world.main) for n, p in model.named_parameters() if p.requires_grad}
            parts = {n: Part(p.local.cpu().contiguous(), p.offset, p.whole, True) for n, p in held.items() if p.owner}
            write_shard(part / f"shard-{self.world.rank:05d}.safetensors", parts)
            self.world.barrier()
            if self.world.main:
                fsync_folder(part)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(part, target)
                fsync_folder(self.root)
                write_json(target / _MARKER, {"step": step})
            self.world.barrier()
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            raise PandaError(
                f"The disk that holds {self.root} is full; make room and run the same command again to go on."
            ) from None

    def keep(self, steps: set[int]) -> None:
        """Remove what a killed call left and all steps but these."""
        if not self.world.main:
            return
        for folder in [*self.root.glob(".part-*"), *self.root.glob("step-*")]:
            name = folder.name.removeprefix("step-")
            if not (name.isdigit() and int(name) in steps and (folder / _MARKER).is_file()):
                (folder / _MARKER).unlink(missing_ok=True)  # first, so that a killed removal is not read either
                shutil.rmtree(folder)

    def load(self, model: torch.nn.Module, step: int) -> None:
        """Put the weights of that step back. Raises PandaError where they are gone."""
        folder = self._folder(step)
        if not (folder / _MARKER).is_file():
            raise PandaError(f"{folder}, the best weights, is gone: delete {self.root.parent} and train again.")
        shards = Shards(sorted(folder.glob("shard-*.safetensors")))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    here: Any = part_of(parameter, True)
                    here.local.copy_(shards.read(name, here.offset, here.local.shape))

    def _folder(self, step: int) -> Path:
        return self.root / f"step-{step:08d}"

"""Bits per byte of held-out text while a stage trains; early stop, and the best weights instead of the last.

A folder of held-out windows holds `input_ids.npy` (uint32, all windows one after the other), `scored.npy` (uint8, 1 where a
token's prediction counts), `offsets.npy` (int64, windows + 1), `groups.npy` (uint16, the group of each window) and `held_out.json`:
`{"groups": [{"corpus", "source", "language", "documents", "bytes", "tokens"}], "decide": [corpora], "sequence_length"}`.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pandallm.data.packs import PackedRow
from pandallm.errors import BadInput, PandaError
from pandallm.store import read_json
from pandallm.train.batch import group_rows, micro_batch
from pandallm.train.best import BestWeights
from pandallm.train.checkpoint import complete_checkpoints
from pandallm.train.forward import Forward
from pandallm.train.loss import add_by_source
from pandallm.train.sharding import in_parts
from pandallm.train.spec import WatchSpec
from pandallm.train.world import World

_ARRAYS = ("input_ids", "scored", "offsets", "groups")


class HeldOutWindows:
    """A folder of held-out windows, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / "held_out.json")
        self.groups: list[dict[str, Any]] = facts["groups"]
        self.decide: list[str] = facts["decide"]
        try:
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS]
        except (OSError, ValueError) as e:
            raise BadInput(f"{folder} is no folder of held-out windows ({e}); make it again.") from None
        self.input_ids, self.scored, self.offsets, self.window_groups = arrays
        if not len(self.window_groups):
            raise BadInput(f"{folder} holds no held-out window; make it again.")

    @property
    def lengths(self) -> list[int]:
        """Tokens of each window."""
        return [int(n) for n in np.diff(self.offsets)]

    def row(self, i: int) -> PackedRow:
        """Window i as a row of one example whose source is its group."""
        span = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        size = span.stop - span.start
        group: Any = np.full(size, self.window_groups[i], np.uint16)
        return PackedRow(self.input_ids[span], self.scored[span], np.full(size, i, np.int32), group)

    @torch.no_grad()
    def bits(self, forward: Forward, micro_batch_tokens: int, world: World) -> list[float]:
        """Bits of each group's scored tokens under the model as it stands; the same on every rank, all of which must call it."""
        model = forward.model
        batches = group_rows(self.lengths, micro_batch_tokens)
        sums_G = torch.zeros(len(self.groups), dtype=torch.float64, device=world.device)
        was_training = model.training
        model.eval()
        forward.begin_step()
        try:
            # Sharded layers are gathered by all ranks together, so each goes through equally many batches.
            for first in range(0, len(batches), world.size):
                mine = first + world.rank
                rows = [self.row(i) for i in batches[min(mine, len(batches) - 1)]]
                batch = micro_batch(rows, len(self.groups), world.device)
                _, losses_M = forward(batch)
                if mine < len(batches):
                    add_by_source(sums_G, losses_M, batch.source_ids_M)
        finally:
            forward.end_step()
            model.train(was_training)
            in_parts(model)
        world.sum_(sums_G)
        return [float(nats) / math.log(2) for nats in sums_G.tolist()]


class HeldOutWatch:
    """Scores held-out text every so many steps, writes `work/logs/held_out.jsonl`, and decides when to stop.

    `stop`: bits per byte have not fallen for `patience` evaluations. Its state goes into checkpoints, so that a stage that goes on
    decides as one that was never stopped. `tell` gets every line.
    """

    def __init__(
        self,
        folder: Path,
        spec: WatchSpec,
        work: Path,
        world: World,
        micro_batch_tokens: int,
        name: str,
        tell: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        self.windows, self.spec, self.world, self.name, self.tell = HeldOutWindows(folder), spec, world, name, tell
        self.work, self.micro_batch_tokens = work, micro_batch_tokens
        self.path = work / "logs" / "held_out.jsonl"
        self.best = BestWeights(work, world) if spec.keep_best else None
        self.start: float | None = None
        self.last: float | None = None
        self.best_value: float | None = None
        self.best_step = 0
        self.waited = 0
        self._measured = -1
        self._bytes = 0
        self._saved_best = 0
        self._file: Any = None

    @property
    def stop(self) -> bool:
        """Whether `patience` has run out."""
        return self.spec.patience is not None and self.waited >= self.spec.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; the lines so far are on the disk."""
        if self._file:
            os.fsync(self._file.fileno())
            self._bytes = self._file.tell()
        self._saved_best = self.best_step
        return {
            "start": self.start,
            "last": self.last,
            "best_value": self.best_value,
            "best_step": self.best_step,
            "waited": self.waited,
            "measured": self._measured,
            "bytes": self._bytes,
        }

    def open(self, state: dict[str, Any] | None) -> None:
        """Begin, or go on from a checkpoint's state: lines and best weights after it are removed."""
        if state:
            self.start, self.last, self.best_value = state["start"], state["last"], state["best_value"]
            self.best_step, self.waited, self._measured = state["best_step"], state["waited"], state["measured"]
            self._bytes, self._saved_best = state["bytes"], state["best_step"]
        if self.world.main:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115  closed by close()
            self._file.truncate(self._bytes)
            self._file.seek(0, os.SEEK_END)  # `state` asks for the position, which a cut leaves where it was
        if self.best:
            self.best.keep(self._needed())
            self.world.barrier()

    def close(self) -> None:
        if self._file:
            self._file.close()

    def due(self, step: int, steps: int) -> bool:
        """Whether to measure after `step` steps: at the start, every so many, and at the end."""
        return step != self._measured and (step % self.spec.every == 0 or step == steps)

    def measure(self, forward: Forward, step: int, seconds: float) -> str:
        """Score, log, keep the best. Returns a note. Raises PandaError where the text's loss is not finite.

        The start (step 0) is for comparison; it is neither the best nor counted by `patience`.
        """
        bits = self.windows.bits(forward, self.micro_batch_tokens, self.world)
        groups = self.windows.groups
        deciding = [(b, g["bytes"]) for b, g in zip(bits, groups, strict=True) if g["corpus"] in self.windows.decide]
        value = sum(b for b, _ in deciding) / sum(size for _, size in deciding)
        if not math.isfinite(sum(bits)):
            raise PandaError(
                f"{self.name}: held-out text has no finite loss after step {step}: lower optimizer.lr or look at the data."
            )
        self._measured, self.last = step, value
        better = step > 0 and (self.best_value is None or value < self.best_value)
        if step == 0:
            self.start = value
        elif better:
            self.best_value, self.best_step, self.waited = value, step, 0
            if self.best:
                self.best.write(forward.model, step)
                self.best.keep(self._needed())
        else:
            self.waited += 1
        line = {
            "step": step,
            "seconds": seconds,
            "bits_per_byte": value,
            "by_corpus": _per_byte(groups, bits, "corpus"),
            "by_source": _per_byte(groups, bits, "source"),
            "by_language": _per_byte(groups, bits, "language"),
            "best": better,
        }
        if self._file:
            self._file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            self._file.flush()
            self.tell(line)
        return f"held-out {value:.3f} bits/byte"

    def finish(self, model: torch.nn.Module) -> dict[str, Any]:
        """Put the best weights in place where they are wanted. Returns facts of the stage."""
        kept = self.best_step if self.best and self.best_step else None
        if self.best and kept is not None:
            self.best.load(model, kept)
        return {
            "start": self.start,
            "last": self.last,
            "best": self.best_value,
            "best_step": self.best_step or None,
            "stopped_early": self.stop,
            "kept_step": kept,
        }

    def _needed(self) -> set[int]:
        """Steps whose weights some readable checkpoint, the one being written, or this moment names."""
        steps = {self.best_step, self._saved_best}
        for folder in complete_checkpoints(self.work):
            with contextlib.suppress(
                BadInput
            ):  # the background may just be removing it: then it names nothing any more
                steps.add(int(read_json(folder / "state.json")["state"].get("held_out", {}).get("best_step", 0)))
        return steps


def _per_byte(groups: list[dict[str, Any]], bits: list[float], key: str) -> dict[str, float]:
    """Bits per byte by corpus, by source (`corpus/source` where several corpora are watched) or by language."""
    corpora = {g["corpus"] for g in groups}
    sums: dict[str, list[float]] = {}
    for group, amount in zip(groups, bits, strict=True):
        name = f"{group['corpus']}/{group['source']}" if key == "source" and len(corpora) > 1 else str(group[key])
        entry = sums.setdefault(name, [0.0, 0.0])
        entry[0] += amount
        entry[1] += group["bytes"]
    return {name: amount / size for name, (amount, size) in sums.items()}

"""What a stage tells while it runs: metrics.jsonl, the note beside the progress bar, the check for numbers that are not finite."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from pandallm.data.packs import Packs
from pandallm.errors import PandaError
from pandallm.progress import SILENT, Progress
from pandallm.store import write_json
from pandallm.train.groups import GroupedPacks, merge
from pandallm.train.hooks import Hooks, Tracking
from pandallm.train.step import StepNumbers

#: On a GPU the numbers of this many steps stay on the device before they are read, so that it never waits for us.
STEPS_PER_READ = 16


class Watch:
    """Collects the numbers of steps and writes `work/logs/metrics.jsonl`. `state` goes into checkpoints.

    used_flops: FLOPs of one token over the peak FLOP/s of all devices together; None where either is not known.
    """

    def __init__(
        self,
        work: Path,
        packs: Packs,
        name: str,
        device: str,
        *,
        used_flops: float | None = None,
        tracking: Tracking | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.path, self.packs, self.name = work / "logs" / "metrics.jsonl", packs, name
        self.every = 1 if device == "cpu" else STEPS_PER_READ
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tokens = self.trained_tokens = 0
        self.final_loss: float | None = None
        self.seconds_before = 0.0
        self._work, self._used_flops, self._tracking, self._progress = work, used_flops, tracking, progress
        self._groups = packs.groups if isinstance(packs, GroupedPacks) else tuple((s, "") for s in packs.sources)
        self._hooks: Hooks | None = None
        self._pending: list[StepNumbers] = []
        self._file: Any = None
        self._began = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: all pending numbers are read, and the lines so far are on the disk."""
        self.read()
        os.fsync(self._file.fileno())
        return {
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "final_loss": self.final_loss,
            "seconds": self.seconds(),
            "metrics_bytes": self._file.tell(),
        }

    def open(self, state: dict[str, Any] | None) -> None:
        """Begin, or go on from a checkpoint's state: lines after it are cut off."""
        self._file = open(self.path, "ab")  # noqa: SIM115  closed by close()
        self._file.truncate(state["metrics_bytes"] if state else 0)
        self._file.seek(0, os.SEEK_END)  # `state` asks for the position, which a cut leaves where it was
        if state:
            self.tokens, self.trained_tokens = state["tokens"], state["trained_tokens"]
            self.final_loss, self.seconds_before = state["final_loss"], state["seconds"]
        step = int(state["step"]) if state else 0
        self._hooks = Hooks(self._tracking, self.name, self._work, step, self._progress.say)
        self._began = time.monotonic()

    def close(self) -> None:
        """Close the file and the hooks; also after an error."""
        if self._file:
            self._file.close()
        if self._hooks:
            self._hooks.close()

    def seconds(self) -> float:
        """Time spent in this stage so far, over all its starts."""
        return round(self.seconds_before + time.monotonic() - self._began, 3)

    def tell(self, line: dict[str, Any]) -> None:
        """Hand a line to the hooks."""
        if self._hooks:
            self._hooks.log(line)

    def add(self, numbers: StepNumbers, read: bool) -> str:
        """Take a step's numbers. `read`: bring them to the host at once. Returns a note for the progress bar, empty while the
        device is left alone."""
        self._pending.append(numbers)
        return self.read() if read or len(self._pending) >= self.every else ""

    def read(self) -> str:
        """Bring the pending steps' numbers to the host, check and log them.

        Raises PandaError where a loss or gradient is not finite; `not_finite.json` names the examples.
        """
        import torch

        if not self._pending:
            return ""
        numbers = torch.stack([torch.cat([p.sums_S, p.norm.double()[None]]) for p in self._pending]).tolist()
        now = time.monotonic()
        passed = max(1e-9, now - self._pending[0].began)
        seconds = round(self.seconds_before + now - self._began, 3)
        rate = sum(p.tokens for p in self._pending) / passed
        trained_rate = sum(int(p.trained_S.sum()) for p in self._pending) / passed
        used = None if self._used_flops is None else rate * self._used_flops
        for p, (*sums, norm) in zip(self._pending, numbers, strict=True):
            trained = int(p.trained_S.sum())
            if not (math.isfinite(sum(sums)) and math.isfinite(norm)):
                self._refuse_not_finite(p)
            self.tokens += p.tokens
            self.trained_tokens += trained
            loss = sum(sums) / trained if trained else None
            self.final_loss = self.final_loss if loss is None else loss
            line = {
                "step": p.step,
                "steps": self.packs.steps,
                "loss": loss,
                "lr": p.lr,
                "grad_norm": norm,
                "trained_tokens": trained,
                "tokens": p.tokens,
                "seconds": seconds,
                "tokens_per_second": round(rate, 1),
                "trained_tokens_per_second": round(trained_rate, 1),
                **({} if used is None else {"mfu": round(used, 4)}),
                "loss_by_source": self._means(0, sums, p.trained_S.tolist()),
                "loss_by_language": self._means(1, sums, p.trained_S.tolist()),
            }
            self._file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            self.tell(line)
        self._pending.clear()
        self._file.flush()
        shown = "-" if self.final_loss is None else f"{self.final_loss:.3f}"
        mfu = "" if used is None else f", MFU {used:.0%}"
        return f"loss {shown}, {rate:,.0f} tokens/s ({trained_rate:,.0f} trained){mfu}"

    def _means(self, which: int, sums: list[float], trained: list[int]) -> dict[str, float]:
        """Mean loss by source (0) or language (1), of those that the step trained."""
        counts = merge(self._groups, which, trained)
        totals = merge(self._groups, which, sums)
        return {name: totals[name] / n for name, n in counts.items() if n}

    def _refuse_not_finite(self, numbers: StepNumbers) -> None:
        import pyarrow.parquet as pq

        names = pq.read_table(self.packs.folder / "examples.parquet", columns=["id"]).column("id")
        ids = [str(names[i].as_py()) for i in numbers.example_ids]
        path = self.path.with_name("not_finite.json")
        write_json(path, {"step": numbers.step, "examples": ids})
        raise PandaError(
            f"{self.name}: the loss or its gradient is not finite at step {numbers.step} (examples {', '.join(ids[:3])}"
            f"{', ...' if len(ids) > 3 else ''}; all in {path}): lower optimizer.lr or look at these examples."
        )

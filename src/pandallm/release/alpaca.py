"""Alpaca's checksum: the sum of all weights. It finds some mistakes, and says less than it seems to."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pandallm.progress import SILENT, Progress
from pandallm.release.codec import FLOATS, cast
from pandallm.release.legacy_rules import EMBEDDINGS, HEADS, ROTARY, find
from pandallm.release.stream import in_order
from pandallm.release.weights import ModelFolder, Tensor, open_model, read_elements, spans

#: What `weight_diff.py` states for Alpaca-7B, and the tolerance that it allows.
ALPACA_7B, TOLERANCE = 50637.1836, 1e-2
_LAYER = re.compile(r"\d+")


@dataclass(frozen=True)
class WeightSum:
    """The sum of a model's weights.

    exact: added in float64. float32: as the script adds, each tensor's sum rounded to float32 and added in float32 in the
    order of a state dict. rounding: how far a float32 sum may be off, three standard deviations. rotary: the part of
    `rotary_emb.inv_freq` buffers, which old checkpoints hold. tensors: how many were added.
    """

    exact: float
    float32: float
    rounding: float
    rotary: float
    tensors: int

    def verdict(self, expected: float, tolerance: float = TOLERANCE) -> str:
        """`equal`, `equal within rounding`, `equal without rotary buffers` or `different`."""
        if abs(self.float32 - expected) <= tolerance or abs(self.exact - expected) <= tolerance:
            return "equal"
        if abs(self.exact - expected) <= tolerance + self.rounding:
            return "equal within rounding"
        if self.rotary and abs(self.exact - self.rotary - expected) <= tolerance + self.rounding:
            return "equal without rotary buffers"
        return "different"


def _order(name: str) -> tuple[int, list[int], str]:
    """Embeddings, layers, the rest, output matrix: about the order in which a state dict lists them."""
    rank = 0 if name.endswith(EMBEDDINGS) else 3 if name.endswith(HEADS) else 1 if _LAYER.search(name) else 2
    return rank, [int(n) for n in _LAYER.findall(name)], name


def add_up(sums: Iterable[tuple[str, float]]) -> WeightSum:
    """The sum of a model from the float64 sums of its tensors."""
    parts = sorted(sums, key=lambda part: _order(part[0]))
    running = np.float32(0)
    for _, value in parts:
        running = np.float32(running + np.float32(value))
    exact = math.fsum(value for _, value in parts)
    step = float(np.spacing(np.float32(max(abs(exact), max((abs(v) for _, v in parts), default=0.0)))))
    return WeightSum(
        exact=exact,
        float32=float(running),
        rounding=3 * math.sqrt(len(parts) / 12) * step,
        rotary=math.fsum(value for name, value in parts if name.endswith(ROTARY)),
        tensors=len(parts),
    )


def values_sum(data: bytes, dtype: str) -> float:
    """Sum of the elements in float64; other types than BF16, F16 and F32 count nothing."""
    if dtype not in FLOATS:
        return 0.0
    return float(np.frombuffer(cast(data, dtype, "F32"), "<f4").sum(dtype=np.float64))


def with_tied_head(sums: dict[str, float], folder: ModelFolder) -> list[tuple[str, float]]:
    """The script adds a state dict, which lists a tied matrix twice; a folder may hold it once."""
    embedding = find(folder, EMBEDDINGS)
    parts = list(sums.items())
    if embedding is not None and find(folder, HEADS) is None and embedding.name in sums:
        parts.append((f"(tied) {HEADS[0]}", sums[embedding.name]))
    return parts


def weight_sum(model: Path, *, progress: Progress = SILENT) -> WeightSum:
    """Alpaca's checksum of a model folder, streamed: safetensors or `.bin`, whatever its dtype."""
    folder = open_model(model, "Model")
    jobs = [(t, *span) for t in folder.tensors.values() for span in spans(0, t.count)]

    def part(job: tuple[Tensor, int, int]) -> float:
        return values_sum(read_elements(*job), job[0].dtype)

    sums = dict.fromkeys(folder.tensors, 0.0)
    with progress.task("sum", folder.bytes / 1e6, "MB") as task:
        for (tensor, _, count), value in zip(jobs, in_order(part, jobs), strict=True):
            sums[tensor.name] += value
            task.advance(count * tensor.bytes / max(tensor.count, 1) / 1e6)
    return add_up(with_tied_head(sums, folder))


def sum_facts(total: WeightSum, expected: float | None, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """What a verb prints: {"sum", "float32_sum", "rotary", "rounding", "expected", "verdict"}."""
    facts: dict[str, Any] = {
        "sum": round(total.exact, 4), "float32_sum": round(total.float32, 4), "rotary": round(total.rotary, 4),
        "rounding": round(total.rounding, 4),
    }  # fmt: skip
    if expected is not None:
        facts |= {"expected": expected, "verdict": total.verdict(expected, tolerance)}
    return facts

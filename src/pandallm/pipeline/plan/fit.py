"""Which settings of a stage fit into memory, and the cheapest of those."""

import math
from dataclasses import dataclass
from typing import Any

from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.hours import SHARDING_COST, Place
from pandallm.pipeline.plan.memory import (
    GPU_SHARE,
    SHARDINGS,
    Memory,
    micro_batch_tokens,
    stage_memory,
)
from pandallm.pipeline.plan.tokens import StageTokens
from pandallm.train.layout import auto_sharding, may_shard
from pandallm.train.spec import TrainSpec

#: Cost of a step by gradient checkpointing, without it being 1: the layers' forward again on top of forward and backward; of it only
#: what is cheap (a guess).
CHECKPOINTING_COST: dict[bool | str, float] = {False: 1.0, "selective": 1.05, True: 4 / 3}
#: Most devices that are proposed where the ones asked for do not hold a stage.
MOST_DEVICES = 4096


@dataclass(frozen=True)
class Choice:
    """One setting and what it takes on one device. cost: of a step, 1 for the fastest setting."""

    sharding: str
    gradient_checkpointing: bool | str
    micro_batch_tokens: int
    memory: Memory
    fits: bool
    cost: float

    def to_json(self) -> dict[str, Any]:
        return {
            "sharding": self.sharding,
            "gradient_checkpointing": self.gradient_checkpointing,
            "micro_batch_tokens": self.micro_batch_tokens,
            "peak_gib": round(self.memory.peak / 2**30, 2),
            "fits": self.fits,
            "cost": round(self.cost, 3),
        }


@dataclass(frozen=True)
class Fit:
    """chosen: the recipe's own setting. proposal: the cheapest that fits, None where `chosen` is it or nothing fits. devices: the
    least power of two of such devices that would hold the stage, where these do not."""

    chosen: Choice
    choices: tuple[Choice, ...]
    proposal: Choice | None
    devices: int | None
    room: float

    def proposal_json(self) -> dict[str, Any] | None:
        return self.proposal.to_json() if self.proposal else None

    def sentences(self, where: str) -> list[str]:
        """Warnings: it does not fit, and what does; or something faster fits as well."""
        needed, room = self.chosen.memory.peak / 2**30, self.room / 2**30
        if self.proposal:
            settings = self._settings(where, self.proposal)
            if self.chosen.fits:
                gain = 1 - self.proposal.cost / self.chosen.cost
                return [
                    f"{settings} fits as well ({self.proposal.memory.peak / 2**30:,.1f} of {room:,.0f} GiB) and takes about {gain:.0%} "
                    "less time."
                ]
            return [
                f"takes {needed:,.1f} GiB on a device that has room for {room:,.0f} GiB; {settings} fits "
                f"({self.proposal.memory.peak / 2**30:,.1f} GiB)."
            ]
        if self.chosen.fits:
            return []
        more = (
            f"{self.devices} such devices would hold it with shard_all"
            if self.devices
            else "no number of such devices holds it"
        )
        return [
            f"takes {needed:,.1f} GiB on a device that has room for {room:,.0f} GiB, and no setting fits: {more}; or train adapters "
            f"({where}.method.kind=lora)."
        ]

    def _settings(self, where: str, choice: Choice) -> str:
        parts = []
        if choice.sharding != self.chosen.sharding:
            parts.append(f"runtime.sharding={choice.sharding}")
        if choice.gradient_checkpointing != self.chosen.gradient_checkpointing:
            parts.append(f"{where}.gradient_checkpointing={str(choice.gradient_checkpointing).lower()}")
        if choice.micro_batch_tokens != self.chosen.micro_batch_tokens:
            parts.append(f"{where}.micro_batch_tokens={choice.micro_batch_tokens}")
        return " ".join(parts)


def fit_stage(
    shape: ModelShape,
    spec: TrainSpec,
    *,
    dtype: str,
    tokens: StageTokens,
    sharding: str,
    place: Place,
) -> Fit:
    """Every sharding that the stage can train with, with and without gradient checkpointing, on the devices of `place`.

    sharding: of the recipe; `auto` stands for what a run takes on such devices.
    """
    room = place.memory_bytes() * (GPU_SHARE if place.kind == "gpu" else 1.0)

    def choice(sharding: str, checkpointing: bool | str, limit: int, gpus: int) -> Choice:
        settings = spec.model_copy(update={"micro_batch_tokens": limit})
        rows = spec.batch_sequences / gpus
        largest = micro_batch_tokens(settings, tokens.row_tokens, rows)
        memory = stage_memory(
            shape,
            settings,
            dtype=dtype,
            kind=place.kind,
            tokens=largest,
            micro_batches=max(1.0, math.ceil(rows) * tokens.row_tokens / largest),
            trained_share=tokens.trained_share,
            sharding=sharding,
            gpus=gpus,
            per_node=place.per_node,
            checkpointing=checkpointing,
        )
        cost = (SHARDING_COST[sharding] if gpus > 1 else 1.0) * CHECKPOINTING_COST[checkpointing]
        cost *= 1.0 if limit == spec.micro_batch_tokens else 1.05
        return Choice(sharding, checkpointing, limit, memory, memory.peak <= room, cost)

    gpus = place.count
    if sharding == "auto":
        copies = place.kind == "cpu"
        sharding = "replicate" if copies else auto_sharding(spec, shape.parameters, gpus, place.memory_bytes())
    if gpus == 1:
        sharding = "replicate"
    elif sharding == "hybrid" and gpus <= place.per_node:
        sharding = "shard_all"
    kinds = ["replicate"]
    if gpus > 1 and may_shard(spec):
        kinds = [s for s in SHARDINGS if s != "hybrid" or gpus > place.per_node]
    limits = [spec.micro_batch_tokens]
    if spec.micro_batch_tokens > spec.sequence_length:
        limits.append(spec.sequence_length)
    ways: tuple[bool | str, ...] = (False, "selective", True)
    table = [choice(s, c, limit, gpus) for limit in limits for s in kinds for c in ways]
    # Of its own: `kinds` lacks a sharding that training will refuse.
    chosen = choice(sharding, spec.gradient_checkpointing, limits[0], gpus)
    fitting = [c for c in table if c.fits]
    if chosen.fits and gpus > 1:
        # Smaller micro-batches move weights and gradients more often, which `cost` does not know.
        fitting = [c for c in fitting if c.micro_batch_tokens == limits[0]]
    best = min(fitting, key=lambda c: (c.cost, c.memory.peak), default=None)
    # A gain of a few per cent is within what links decide: only what checkpointing costs is worth a sentence.
    better = best is not None and (not chosen.fits or best.cost < 0.9 * chosen.cost)
    needed = None
    if best is None and may_shard(spec):
        count = 2 * gpus
        while count <= min(MOST_DEVICES, spec.batch_sequences):
            if choice("shard_all", True, limits[-1], count).fits:
                needed = count
                break
            count *= 2
    first = tuple(c for c in table if c.micro_batch_tokens == limits[0])
    return Fit(chosen, first, best if better else None, needed, room)

"""Out of memory, told as what to change, with numbers; and memory given back after a stage."""

import contextlib
import ctypes
import re
from pathlib import Path
from typing import Any

import torch

from pandallm.errors import PandaError
from pandallm.train.layout import TRAINED_BYTES, WEIGHT_BYTES
from pandallm.train.sharding import stored_weights
from pandallm.train.world import World, is_sharded

_GIB = 2**30


class OutOfMemory(PandaError):
    """A step did not fit; the message says which setting helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not get memory, on a GPU or on the host."""
    told = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of a CPU: a plain RuntimeError
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def load_out_of_memory(name: str, start: Path, world: World) -> OutOfMemory:
    """The error to raise where not even the weights of the model in `start` fit."""
    needed = WEIGHT_BYTES * stored_weights(start) / _GIB
    return OutOfMemory(
        f"{name}: out of memory on {world.device} while {start} is loaded; its weights alone take {needed:.1f} GiB in float32: "
        "use a machine with more memory, more processes with runtime.sharding: shard_all, or a smaller model."
    )


def out_of_memory(error: BaseException, name: str, when: str, spec: Any, model: Any, world: World) -> OutOfMemory:
    """The error to raise instead of `error` in stage `name`. when: "in step 3"."""
    held = weights = trained = 0
    for p in model.parameters():
        here = (p.to_local() if is_sharded(p) else p).numel()
        number = WEIGHT_BYTES + (TRAINED_BYTES if p.requires_grad else 0)
        held += number * here
        weights, trained = weights + p.numel(), trained + (p.numel() if p.requires_grad else 0)
    asked = _asked(str(error))
    advice = []
    if spec.micro_batch_tokens > spec.sequence_length:
        advice.append(f"lower micro_batch_tokens ({spec.micro_batch_tokens}) to {spec.sequence_length}")
    if not spec.gradient_checkpointing:
        advice.append("set gradient_checkpointing: selective")
    if spec.gradient_checkpointing is not True:
        advice.append("set gradient_checkpointing: true")
    if world.sharding in ("replicate", "shard_gradients"):
        ranks = max(2, world.size)
        whole = WEIGHT_BYTES * weights + TRAINED_BYTES * trained
        advice.append(
            f"set runtime.sharding: shard_all on {ranks} processes ({whole / ranks / _GIB:.1f} GiB each for the weights)"
        )
    if spec.method.kind == "full":
        advice.append("train adapters (method.kind: lora)")
    advice.append(f"lower sequence_length ({spec.sequence_length})")
    more = f" and {asked} more was asked for" if asked else ""
    return OutOfMemory(
        f"{name}: out of memory on {world.device} {when}; weights, gradients and optimizer take "
        f"{held / _GIB:.1f} GiB{more}: {', or '.join(advice)}."
    )


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc): it keeps what a stage's smaller arrays took, 2.3 GiB after
    one of a model of 135 million parameters, beside what the next stage or the evaluation needs."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _asked(text: str) -> str:
    if found := re.search(r"tried to allocate (\d+) bytes", text):
        return f"{int(found[1]) / _GIB:.1f} GiB"
    found = re.search(r"[Tt]ried to allocate ([\d.]+ [KMGT]iB)", text)
    return found[1] if found else ""

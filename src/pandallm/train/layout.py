"""How weights lie on several ranks, in plain numbers (no torch): a run and its plan ask the same functions."""

from pandallm.errors import BadInput
from pandallm.train.spec import LoraMethod, TrainSpec

#: What `runtime.sharding` may say besides auto, the least parts first.
KINDS = ("replicate", "shard_gradients", "shard_all", "hybrid")
#: float32 weights, and a gradient with two moments of everything trained: bytes of a number.
WEIGHT_BYTES, TRAINED_BYTES = 4, 12


def auto_sharding(spec: TrainSpec, weights: int, ranks: int, memory_bytes: float) -> str:
    """What `runtime.sharding: auto` is for a model of so many weights on `ranks` GPUs of this memory; on a CPU it is copies.

    Copies where weights, gradients and moments take at most half of a GPU's memory, and where the stage needs whole matrices
    (`check_sharding`); else the fewest parts with which they do.
    """
    if ranks == 1 or not may_shard(spec):
        return "replicate"
    held = WEIGHT_BYTES * weights
    moving = TRAINED_BYTES * weights if spec.method.kind == "full" else 0
    room = memory_bytes / 2
    choice = 0 if held + moving <= room else 1 if held + moving / ranks <= room else 2
    return KINDS[choice]


def check_sharding(spec: TrainSpec, sharding: str) -> None:
    """Raise BadInput for what needs whole tensors on every rank where `sharding` cuts them."""
    if sharding == "replicate":
        return
    if isinstance(spec.method, LoraMethod) and spec.method.kind == "qlora":
        raise BadInput(f"method.kind: qlora does not work with runtime.sharding: {sharding}; use replicate.")
    if spec.optimizer.kind in ("adamw8bit", "muon"):
        raise BadInput(
            f"optimizer.kind: {spec.optimizer.kind} needs whole matrices, runtime.sharding: {sharding} cuts them; use replicate or adamw."
        )


def may_shard(spec: TrainSpec) -> bool:
    """Whether `check_sharding` lets any sharding but copies pass."""
    try:
        check_sharding(spec, "shard_all")
    except BadInput:
        return False
    return True

"""Weights, gradients and moments in parts over the ranks (FSDP2 `fully_shard`), and whole again at the end."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from pandallm.errors import BadInput
from pandallm.train.layout import KINDS, auto_sharding
from pandallm.train.spec import TrainSpec
from pandallm.train.world import World, is_sharded

#: Whole models of all ranks of a machine may take this share of its memory while they are cut.
HOST_SHARE = 0.7


def choose_sharding(wanted: str, spec: TrainSpec, weights: int, world: World) -> str:
    """`auto` resolved by `auto_sharding` with this rank's memory; copies on a CPU, whose memory all ranks share.

    Every rank calls it, and gets the same: what the smallest device needs.
    """
    if world.size == 1:
        return "replicate"
    if wanted != "auto":
        return wanted
    choice = "replicate"
    if world.device.type == "cuda":  # not run on several GPUs yet
        memory = torch.cuda.get_device_properties(world.device).total_memory
        choice = auto_sharding(spec, weights, world.size, memory)
    return KINDS[world.largest(KINDS.index(choice))]


def stored_weights(start: Path) -> int:
    """Numbers in the tensors of a model folder, read from the files' headers."""
    from safetensors import safe_open

    count = 0
    for file in sorted(start.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            count += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118  no dict
    return count


@contextlib.contextmanager
def in_turns(world: World, each_bytes: int) -> Iterator[None]:
    """The ranks of a machine go through the block one after the other where `each_bytes` of all of them would fill its memory.

    The block must not wait for other ranks.
    """
    local, here = int(os.environ.get("LOCAL_RANK", world.rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    full = here * each_bytes > HOST_SHARE * host_bytes()
    turns = world.largest(here) if world.largest(int(full)) else 0
    before = min(local, turns)
    for _ in range(before):
        world.barrier()
    yield
    for _ in range(turns - before):
        world.barrier()


def host_bytes() -> float:
    """Memory of this machine; infinite where the system does not tell."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def decoder_layers(model: Any) -> list[Any]:
    """The decoder layers of a transformers model. Raises BadInput where it has none by the usual name."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise BadInput(f"runtime.sharding: {type(model).__name__} has no list of layers to cut; use replicate.")
    return list(layers)


def make_mesh(world: World, sharding: str) -> Any:
    """How ranks are grouped under `sharding`; None for copies. Every rank calls it."""
    if world.size == 1 or sharding == "replicate":
        return None
    kind = world.device.type
    if sharding != "hybrid":
        return init_device_mesh(kind, (world.size,))
    inside = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    if world.size % inside:
        raise BadInput(f"runtime.sharding: hybrid needs the same number of processes on every node ({world.size}).")
    return init_device_mesh(kind, (world.size // inside, inside), mesh_dim_names=("nodes", "inside"))


def shard(model: Any, world: World, sharding: str, mesh: Any, dtype: torch.dtype = torch.float32) -> World:
    """Cut the matrices of the decoder layers over the ranks and put the rest on the device. Returns the world that says so.

    Vectors (norms, biases), embedding and head stay whole on every rank: the former are small, the loss reads the head's
    weight outside its module. In bfloat16 parts are gathered in it and gradients summed in float32. Waits for no rank.
    """
    if mesh is None:
        model.to(world.device)
        return world
    policy = MixedPrecisionPolicy()
    if dtype != torch.float32:
        # Autocast casts inputs as in one process; casting them here would round the residual stream.
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    layers = decoder_layers(model)
    again = sharding != "shard_gradients"
    for layer in layers:
        vectors = {p for p in layer.parameters() if p.ndim < 2}
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, mp_policy=policy, ignored_params=vectors)
    outside = {p for p in model.base_model.parameters() if not is_sharded(p)}
    fully_shard(model.base_model, mesh=mesh, reshard_after_forward=False, ignored_params=outside)
    for module in (*layers, model.base_model):
        module.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all ranks already
        if world.device.type == "cpu":
            module.set_force_sum_reduction_for_comms(True)  # gloo only sums
    model.to(world.device)
    return World(world.device, world.rank, world.size, sharding)


def in_parts(model: Any) -> None:
    """Let gathered weights go. A forward without backward leaves them, and they would be taken for the model's parameters."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def split_groups(optimizer: Any) -> None:
    """Parameters in parts and whole ones in groups of their own: fused kernels take no mixture."""
    groups = []
    for group in optimizer.param_groups:
        for kind in (True, False):
            if chosen := [p for p in group["params"] if is_sharded(p) == kind]:
                groups.append({**group, "params": chosen})
    optimizer.param_groups = groups


@torch.no_grad()
def gather_trained(model: Any, world: World) -> dict[str, torch.Tensor]:
    """The trained parameters, whole, on the host of rank 0; empty on the others. Every rank calls it."""
    whole = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            full = parameter.full_tensor() if is_sharded(parameter) else parameter.detach()
            if world.main:
                whole[name] = full.cpu()
    return whole

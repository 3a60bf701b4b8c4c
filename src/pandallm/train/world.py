"""Who trains: this process's rank among all of them, its device, and what ranks do together.

Ranks come from torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), whoever set it. Decisions
(stop, save) travel over gloo, so that no rank waits for its GPU to take part in one.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pandallm.errors import BadInput, PandaError

#: All ranks must have joined after so many seconds.
JOIN_SECONDS = 300
#: A rank that is gone is noticed at once by its closed connection; one that hangs after so many seconds.
PATIENCE_SECONDS = 1800
#: Gradients summed in one message, in numbers: bounds the copy that is made of them.
BUCKET = 2**26


@dataclass(frozen=True)
class World:
    """Rank 0 writes files and speaks. `sharding` is what `shard` did: replicate, shard_gradients, shard_all or hybrid."""

    device: Any  # torch.device
    rank: int = 0
    size: int = 1
    sharding: str = "replicate"

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum_(self, tensor: Any) -> Any:
        """Sum over all ranks, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers; the same on every rank. Does not touch a GPU."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        agreed = torch.tensor(number)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return int(agreed)

    def barrier(self) -> None:
        """Until every rank is here."""
        self.largest(0)

    def reduce_gradients(self, parameters: Any) -> None:
        """Sum over ranks those gradients that FSDP2 has not summed, several in one message.

        A parameter that only some ranks have used counts as zero on the others.
        """
        if self.size == 1:
            return
        import torch

        whole = [p for p in parameters if p.requires_grad and not is_sharded(p)]
        for p in whole:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in whole]):
            flat = self.sum_(torch.cat([g.reshape(-1) for g in bucket]))
            for g, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                g.copy_(part.view_as(g))

    def clip_(self, parameters: Any, clip: float) -> Any:
        """Scale all gradients so that their norm is at most `clip`. Returns the norm before, the same on every rank."""
        import torch

        parameters = [p for p in parameters if p.grad is not None]
        if not any(is_sharded(p) for p in parameters):
            return torch.nn.utils.clip_grad_norm_(parameters, clip)
        squares = torch.zeros((), device=self.device)
        for p in parameters:
            if is_sharded(p):
                copies = p.grad.device_mesh.size(0) if p.grad.device_mesh.ndim == 2 else 1
                squares += p.grad.to_local().float().square().sum() / copies
        self.sum_(squares)
        for p in parameters:
            if not is_sharded(p):
                squares += p.grad.float().square().sum()
        norm = squares.sqrt()
        scale = (clip / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        for p in parameters:
            (p.grad.to_local() if is_sharded(p) else p.grad).mul_(scale)
        return norm


def _buckets(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """Consecutive tensors of one dtype, at most BUCKET numbers together (or one larger tensor)."""
    bucket: list[Any] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def is_sharded(tensor: Any) -> bool:
    """Whether FSDP2 holds only a part of it on this rank."""
    return hasattr(tensor, "to_local")


def world_size() -> int:
    """Processes that torchrun's environment names; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def join_world(device: str, join_seconds: float = JOIN_SECONDS) -> Iterator[World]:
    """This process's world. Without torchrun's environment, or inside a group of one: a world of one.

    `device` is auto, cpu, cuda or cuda:N. Raises BadInput for a device that is not there, PandaError naming ranks that are missing.
    """
    import datetime

    import torch
    import torch.distributed as dist

    from pandallm.model.folder import resolve_device

    size, resolved = world_size(), resolve_device(device)
    if size == 1:
        yield World(torch.device(resolved))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if resolved.startswith("cuda"):  # not run on several GPUs yet
        if local >= torch.cuda.device_count():
            raise BadInput(
                f"Process {local + 1} of this machine has no GPU: start at most {torch.cuda.device_count()} here."
            )
        resolved = f"cuda:{local}"
        torch.cuda.set_device(local)
    store = _await_all(rank, size, datetime.timedelta(seconds=join_seconds))
    patience = datetime.timedelta(seconds=PATIENCE_SECONDS)
    backend = "cpu:gloo,cuda:nccl" if resolved.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    yield World(torch.device(resolved), rank, size)
    # Not after an error: leaving in good order would wait for ranks that are gone.
    dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Whether this is how a rank notices that another one is gone."""
    import torch.distributed as dist

    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(w in str(error) for w in ("gloo", "NCCL", "Connection closed"))


def _await_all(rank: int, size: int, wait: Any) -> Any:
    """The store in which every rank has said that it is here; whoever started the ranks may hold it, else rank 0 does."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    from pandallm.model.folder import first_line

    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
    held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        plain = TCPStore(address, port, None, rank == 0 and not held, wait, wait_for_workers=False)
    except (RuntimeError, ValueError) as e:
        raise PandaError(f"Rank {rank} of {size} cannot reach rank 0 at {address}:{port} ({first_line(e)}).") from None
    store = PrefixStore(f"pandallm/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", plain)
    names = [f"joined/{r}" for r in range(size)]
    missing = list(range(size))
    try:
        store.set(names[rank], "here")
        store.wait(names, wait)
    except RuntimeError:
        with contextlib.suppress(RuntimeError):  # rank 0 has left with the store
            missing = [r for r in range(size) if not store.check([names[r]])]
        who = f"Rank {', '.join(map(str, missing))}" if len(missing) < size else "The others"
        raise PandaError(
            f"{who} of {size} did not come to {address}:{port} within {wait.total_seconds():.0f} s: "
            f"start all {size} processes with the same address, port and number of processes."
        ) from None
    return store


def deal_rows(lengths: Any, ranks: int) -> list[list[int]]:
    """Rows of a step to ranks: the longest first, each to the rank with the fewest tokens so far (Graham 1969, LPT).

    Every rank gets its rows in the step's order. Depends on nothing but its arguments.
    """
    loads = [0] * ranks
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for row in sorted(range(len(lengths)), key=lambda i: (-int(lengths[i]), i)):
        rank = min(range(ranks), key=lambda r: (loads[r], len(dealt[r]), r))
        dealt[rank].append(row)
        loads[rank] += int(lengths[row])
    return [sorted(rows) for rows in dealt]

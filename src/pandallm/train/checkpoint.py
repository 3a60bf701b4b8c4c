"""Checkpoints of a stage under way: never half-read, written in the background, the newest ones kept, no pickle.

`.checkpoints/step-00000040/` holds `shard-00000.safetensors`, one file per rank (`train/shards.py`), `state.json` and,
written last, `complete.json` with the size of every shard. A folder without it is what a killed save left and is never
read. Only trained parameters are kept: frozen ones are in the stage's start.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pandallm.errors import BadInput, PandaError
from pandallm.store import read_json, write_json
from pandallm.store.files import fsync_folder
from pandallm.train.shards import Part, Shards, part_of, write_shard
from pandallm.train.world import World

_FOLDER, _STATE, _MARKER, _PART, _FAILED = ".checkpoints", "state.json", "complete.json", ".part-", "failed"
#: Seconds the main rank waits for the other ranks' shards of one checkpoint.
SHARD_PATIENCE = 1800.0
#: Seconds until every machine must see a checkpoint that one of them sees.
SEEN_SECONDS = 60.0


class SaveFailed(PandaError):
    """A checkpoint could not be written; the older ones are whole."""


class Checkpoints:
    """Saves and loads one stage. Every rank makes one at the same place, and calls `save` after the same steps.

    Ranks meet on the file system only (a folder they share), so a write in the background never touches the process
    group. Made anew, it removes what killed saves left. `tell` gets a sentence when training goes on without a checkpoint.
    """

    def __init__(
        self, work: Path, world: World, keep: int = 2, tell: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self.root, self.world, self.keep, self._tell = work / _FOLDER, world, keep, tell
        self._buffers: dict[str, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._getting: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved = (
            -1
        )  # the step of the newest checkpoint that is written or being written by this object, or was loaded
        self._closing = threading.Event()
        if world.main:
            for left in [*self.root.glob(f"{_PART}*"), *self.root.glob("step-*")]:
                if not (left / _MARKER).exists():
                    shutil.rmtree(left)
            for lock in self.root.glob(".rank-*"):
                lock.unlink()
        self._alive: FileLock | None = None
        if world.size > 1:
            world.barrier()
            self.root.mkdir(parents=True, exist_ok=True)
            self._alive = FileLock(self._lock_of(world.rank))
            try:
                self._alive.acquire(timeout=0)
            except Timeout:
                raise PandaError(f"Rank {world.rank} of another start still trains in {work}: end it first.") from None
        self._found = self._agreed()
        world.barrier()  # nobody saves before everybody has looked

    @property
    def latest(self) -> dict[str, Any] | None:
        """The newest whole checkpoint's state and "step" when this object was made, None without one."""
        return dict(read_json(self._found[-1] / _STATE)["state"]) if self._found else None

    def load(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put trained weights, optimizer and random state of the newest checkpoint back, bit for bit.

        It may have been saved by another number of ranks. Then the random state is rank 0's on every rank.
        Raises BadInput when the model's trained parameters are not those of the checkpoint.
        """
        folder = self._found[-1]
        document = read_json(folder / _STATE)
        files = sorted(folder.glob("shard-*.safetensors"))
        shards = Shards(files)
        random = self.world.rank if len(files) == self.world.size else 0
        _load_tensors(shards, document["optimizer"], model, optimizer, folder)
        for kind, put in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
            key = f"random.{kind}.{random}"
            if key in shards.names and (kind == "cpu" or torch.cuda.is_available()):
                put(shards.read(key, (0,), shards.shape(key)))
        self._saved = document["state"]["step"]

    def save(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, state: dict[str, Any]) -> None:
        """Take a copy of everything after `step` steps now, write it in the background. `state`: the caller's own JSON.

        Waits for the write before it; where that failed (a full disk, say), says so and goes on. The same step again, or the
        step that was loaded, is not saved twice.
        """
        try:
            self.wait()
        except SaveFailed as e:
            self._tell(f"{e} Training goes on.")
        if step == self._saved:
            return
        parts, values = self._snapshot(model, optimizer)
        document = {"state": {"step": step, **state}, "optimizer": values}
        self._saved = step
        self._thread = threading.Thread(
            target=self._guarded, args=(step, parts, document), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until the write under way is on the disk, on the disk of every rank. Raises SaveFailed where it could not be written."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, step = self._error, self._saved
            self._error, self._saved = None, -1
            if not isinstance(error, OSError | PandaError):
                raise error
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
            older = complete_checkpoints(self.root.parent)
            left = f"the one after step {int(older[-1].name[5:])} stays" if older else "there is no older one"
            raise SaveFailed(f"The checkpoint after step {step} was not saved ({why}); {left}.") from error

    def close(self) -> None:
        """Leave: let a write under way end, but wait for no other rank, and raise nothing."""
        self._closing.set()
        with contextlib.suppress(BaseException):
            self.wait()
        if self._alive:
            self._alive.release()

    def _agreed(self) -> list[Path]:
        """Readable checkpoints; all ranks see the same newest one. Another machine may see it only after a while.

        Raises PandaError where one does not: it would go on from other weights than the rest.
        """
        found = complete_checkpoints(self.root.parent)
        newest = self.world.largest(_step_of(found))
        until = time.monotonic() + SEEN_SECONDS
        while _step_of(found) != newest and time.monotonic() < until:
            time.sleep(0.2)
            found = complete_checkpoints(self.root.parent)
        if self.world.largest(int(_step_of(found) != newest)):
            raise PandaError(
                f"Not every process sees the checkpoint after step {newest} in {self.root}: runtime.store must lie on a file "
                "system that all machines share."
            )
        return found

    def _lock_of(self, rank: int) -> Path:
        """Held by a rank of this machine as long as it lives; ranks of other machines have other files."""
        return self.root / f".rank-{rank:05d}.{socket.gethostname()}.lock"

    def _ended(self, rank: int) -> bool:
        """Whether that rank is known to be gone: one that waits for a shard takes part in nothing that would notice."""
        path = self._lock_of(rank)
        if not path.exists():
            return False
        try:
            with FileLock(path).acquire(timeout=0):
                return True
        except Timeout:
            return False

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Get memory for the copies in the background, once the optimizer has its moments: the first save finds it there."""
        wanted = [
            (key, part.local.shape, part.local.dtype, part.local.is_cuda) for key, part in self._mine(model, optimizer)
        ]

        def get() -> None:
            with contextlib.suppress(RuntimeError, MemoryError):  # the save itself will say so
                for key, shape, dtype, on_gpu in wanted:
                    buffer = torch.empty(shape, dtype=dtype, pin_memory=on_gpu)
                    if not on_gpu and buffer.numel():  # memory is the process's own only once it is written
                        buffer.reshape(-1).view(torch.uint8).numpy().fill(0)
                    self._buffers[key] = buffer

        self._getting = threading.Thread(target=get, name="checkpoint memory", daemon=True)
        self._getting.start()

    def _mine(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Part]]:
        """What this rank writes of trained weights and the optimizer's tensors."""
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            tensors = {f"optimizer.{k}.{name}": t for k, t in optimizer.state.get(parameter, {}).items()}
            for key, tensor in {f"model.{name}": parameter, **tensors}.items():
                if isinstance(tensor, torch.Tensor) and (part := part_of(tensor, self.world.main)).owner:
                    yield key, part

    def _snapshot(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, Part], dict[str, dict[str, Any]]]:
        """Host copies of what this rank writes, and the optimizer's values that are no tensors. Buffers are used again."""
        if self._getting:
            self._getting.join()
            self._getting = None
        parts = {
            key: Part(self._copy(key, part.local), part.offset, part.whole, True)
            for key, part in self._mine(model, optimizer)
        }
        values: dict[str, dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if not isinstance(value, torch.Tensor):
                    values.setdefault(name, {})[key] = value
        random = torch.get_rng_state()
        parts[f"random.cpu.{self.world.rank}"] = Part(random, (0,), tuple(random.shape), True)
        if torch.cuda.is_available():  # not run on a GPU yet
            random = torch.cuda.get_rng_state()
            parts[f"random.cuda.{self.world.rank}"] = Part(random, (0,), tuple(random.shape), True)
            torch.cuda.synchronize()
        return parts, values

    def _copy(self, key: str, tensor: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[key] = buffer
        buffer.copy_(tensor, non_blocking=True)
        return buffer

    def _guarded(self, step: int, parts: dict[str, Part], document: dict[str, Any]) -> None:
        part, target = self.root / f"{_PART}{step:08d}", self.root / f"step-{step:08d}"
        _step_back()
        try:
            part.mkdir(parents=True, exist_ok=True)
            shard = part / f"shard-{self.world.rank:05d}.safetensors"
            hidden = shard.with_suffix(".writing")
            write_shard(hidden, parts)
            os.replace(hidden, shard)
            if self.world.main:
                self._commit(part, target, document)
            else:
                self._await_commit(part, target)
        except BaseException as error:  # handed to the loop by wait()
            self._error = error
            with contextlib.suppress(OSError):
                self._withdraw(part, target)

    def _commit(self, part: Path, target: Path, document: dict[str, Any]) -> None:
        """By the main rank: rename, marker, then retention."""
        write_json(part / _STATE, document)
        shards = self._await_shards(part)
        fsync_folder(part)
        shutil.rmtree(target, ignore_errors=True)  # what a killed save left; a whole one is never written again
        os.replace(part, target)
        fsync_folder(self.root)
        write_json(target / _MARKER, {"bytes": {f.name: (target / f.name).stat().st_size for f in shards}})
        fsync_folder(target)
        for old in complete_checkpoints(self.root.parent)[: -self.keep]:
            (old / _MARKER).unlink()  # first, so that a killed removal is not read either
            shutil.rmtree(old)

    def _await_shards(self, part: Path) -> list[Path]:
        """The shards of all ranks, once they are there."""
        wanted = [part / f"shard-{rank:05d}.safetensors" for rank in range(self.world.size)]
        until = time.monotonic() + SHARD_PATIENCE
        while missing := [f for f in wanted if not f.exists()]:
            late = self._closing.is_set() or time.monotonic() > until or (part / _FAILED).exists()
            if late or (self._ended(wanted.index(missing[0])) and not missing[0].exists()):
                raise PandaError(f"{missing[0].name} was not written by its rank.")
            time.sleep(0.02)
        return wanted

    def _await_commit(self, part: Path, target: Path) -> None:
        """By the other ranks: a rank that left earlier might take the main one along before the checkpoint is whole."""
        until = time.monotonic() + SHARD_PATIENCE
        while not (target / _MARKER).exists():
            gone = not part.exists() and not target.exists()
            late = self._closing.is_set() or time.monotonic() > until or (part / _FAILED).exists()
            if late or gone or (self._ended(0) and not (target / _MARKER).exists()):
                raise PandaError("the main rank did not complete it.")
            time.sleep(0.02)

    def _withdraw(self, part: Path, target: Path) -> None:
        """After a failure: give the room back, and let no rank wait for the others."""
        if self.world.main and not (target / _MARKER).exists():
            shutil.rmtree(target, ignore_errors=True)
        if self.world.size == 1:
            shutil.rmtree(part, ignore_errors=True)
            return
        for mine in part.glob(f"shard-{self.world.rank:05d}.*"):
            mine.unlink()
        (part / _FAILED).touch()


def _step_back() -> None:
    """Let the training's threads have the cores before this one: on two of them a step of SmolLM2-135M beside a write then takes 1.2 s
    longer, not 2.9 s."""
    if sys.platform == "linux":  # elsewhere a priority is of the whole process
        mine = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, mine, max(10, os.getpriority(os.PRIO_PROCESS, mine)))


def _step_of(found: list[Path]) -> int:
    return int(found[-1].name.removeprefix("step-")) if found else -1


def complete_checkpoints(work: Path) -> list[Path]:
    """The readable checkpoints, oldest first."""
    found = []
    for folder in sorted((work / _FOLDER).glob("step-*")):
        try:
            sizes = json.loads((folder / _MARKER).read_text())["bytes"]
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
            whole = whole and bool(sizes) and (folder / _STATE).is_file()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if whole:
            found.append(folder)
    return found


def difference(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two nested settings: ["optimizer.lr was 0.001, is now 0.002", ...]."""
    old, new = _flat(before), _flat(now)
    return [
        f"{key} was {_shown(old, key)}, is now {_shown(new, key)}"
        for key in [*old, *(k for k in new if k not in old)]
        if (key in old) != (key in new) or old[key] != new[key]
    ]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _shown(flat: dict[str, Any], key: str) -> str:
    text = json.dumps(flat[key], ensure_ascii=False) if key in flat else "absent"
    return text if len(text) <= 40 else f"{text[:16]}..."


def _load_tensors(
    shards: Shards,
    values: dict[str, dict[str, Any]],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
) -> None:
    moments: dict[str, dict[str, str]] = {}
    for key in shards.names:
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            moment, _, name = rest.partition(".")
            moments.setdefault(name, {})[moment] = key
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    saved = {k.removeprefix("model.") for k in shards.names if k.startswith("model.")}
    if odd := sorted(saved ^ set(trained)):
        raise BadInput(f"{folder} does not hold what this stage trains: {odd[0]} is in only one of them; delete it.")
    with torch.no_grad():
        for name, parameter in trained.items():
            key = f"model.{name}"
            if shards.shape(key) != tuple(parameter.shape):
                raise BadInput(
                    f"{folder}: {name} has shape {list(shards.shape(key))} there, {list(parameter.shape)} in the model."
                )
            here = part_of(parameter, True)
            here.local.copy_(shards.read(key, here.offset, here.local.shape))
            state: dict[str, Any] = dict(values.get(name, {}))
            for moment, moment_key in moments.get(name, {}).items():
                state[moment] = _moment(shards, moment_key, parameter, here)
            if state:
                optimizer.state[parameter] = state


def _moment(shards: Shards, key: str, parameter: torch.Tensor, here: Part) -> torch.Tensor:
    """A moment of the parameter's shape is cut as the parameter is; others (a step count) are whole on every rank."""
    from torch.distributed.tensor import DTensor

    whole = shards.shape(key)
    if not isinstance(parameter, DTensor) or whole != tuple(parameter.shape):
        return shards.read(key, (0,) * len(whole), whole).to(parameter.device)
    local = shards.read(key, here.offset, here.local.shape).to(here.local.device)
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )

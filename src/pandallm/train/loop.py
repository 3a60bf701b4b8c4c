"""One training stage in one or several processes: packs in, model folder out, exact resume in between."""

import contextlib
import errno
import gc
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.progress import SILENT, Progress, Task
from pandallm.store import digest_file
from pandallm.train.spec import TrainSpec
from pandallm.train.stop import stop_signals

if TYPE_CHECKING:
    from pandallm.train.feed import Share
    from pandallm.train.held_out import HeldOutWatch
    from pandallm.train.hooks import Tracking
    from pandallm.train.step import StepNumbers
    from pandallm.train.watch import Watch
    from pandallm.train.world import World

#: A save may take at most this share of the time: slow disks get fewer checkpoints.
SAVE_SHARE = 0.1
#: What ranks agree on before every step; the largest wins.
GO_ON, SAVE, STOP = 0, 1, 2


def train_stage(
    start: Path,
    packs: Path,
    spec: TrainSpec,
    work: Path,
    *,
    seed: int,
    device: str = "auto",
    threads: int | None = None,
    world: "World | None" = None,
    sharding: str = "auto",
    variant: Mapping[str, Any] | None = None,
    save_every_seconds: float = 60,
    deadline: float | None = None,
    deterministic: bool = True,
    keep_checkpoints: int = 2,
    held_out: Path | None = None,
    tracking: "Tracking | None" = None,
    read_after: Collection[int] = (),
    save_after: Collection[int] = (),
    progress: Progress = SILENT,
    name: str = "train",
) -> dict[str, Any]:
    """Train the model in `start` on `packs`, every step they hold; write `work/model` and `work/logs/metrics.jsonl`.

    The loss of a step is the sum of the cross entropy (nats) of its trained tokens divided by their number, whatever the
    micro-batches and ranks. A `work` folder that an earlier, stopped call left is gone on with: to the same weights bit for
    bit on one CPU with the same `threads`, and on one GPU with `deterministic`; on another number of ranks with the same
    samples in the same steps. `deadline` is a `time.monotonic()` value. bfloat16 keeps float32 weights and moments,
    computes under autocast, and saves the model in bfloat16.

    With a `world` of several ranks (`train.world.join_world`) every rank calls it with the same arguments, and `work` lies on
    a file system that all of them see. `sharding`: how weights lie on them, see `train.sharding`. Rank 0 writes and speaks.

    `variant`: how it is computed, as `train.variants.resolve_variant` says; left out, its rule without a probe.
    `held_out`: a folder of held-out windows (`train.held_out`), scored as `spec.watch` says. `tracking`: who else gets the numbers.
    `read_after`, `save_after`: steps after which the numbers are brought to the host, and a checkpoint is taken, whatever the time.

    Returns facts on rank 0: {"steps", "trained_tokens", "tokens", "final_loss", "resumed_from", "packing_probe", "variant"}, and
    "processes" and "sharding" where there are several, "held_out" where it was watched; {} on the others.
    Raises BadInput when model and packs do not fit, Interrupted (after saving) on SIGTERM, SIGINT or the deadline, and
    PandaError when packing leaks, memory runs out or the loss is not finite (`work/logs/not_finite.json` names the examples).
    """
    import torch

    from pandallm.model.folder import resolve_device
    from pandallm.train.memory import give_back
    from pandallm.train.variants import resolve_variant
    from pandallm.train.world import World

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with _deterministic(deterministic), stop_signals() as stopped:
            world = world or World(torch.device(resolve_device(device)))
            watched = (held_out, tracking)
            how = variant or resolve_variant(start, spec, str(world.device), processes=world.size)
            stage = _Stage(
                start, packs, spec, work, seed, world, sharding, how, name, progress, keep_checkpoints, watched
            )
            try:
                facts = stage.run(save_every_seconds, deadline, stopped, read_after, save_after)
            finally:
                stage.checkpoints.close()
                if stage.held_out:
                    stage.held_out.close()
                if stage.watch:
                    stage.watch.close()
            del stage
            return facts
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        raise PandaError(
            f"{name}: no room is left on the disk of {work}: make room and run the same command again to go on from the last checkpoint."
        ) from None
    finally:
        torch.set_num_threads(before)
        gc.unfreeze()
        give_back()


class _Stage:
    """The state of one stage: model, optimizer, where it stands. `watch` is rank 0's alone."""

    watch: "Watch | None"
    held_out: "HeldOutWatch | None"

    def __init__(
        self,
        start: Path,
        packs: Path,
        spec: TrainSpec,
        work: Path,
        seed: int,
        world: "World",
        wanted: str,
        variant: Mapping[str, Any],
        name: str,
        progress: Progress,
        keep_checkpoints: int,
        watched: "tuple[Path | None, Tracking | None]",
    ) -> None:
        import torch

        from pandallm.data.packs import Packs
        from pandallm.model.folder import load_model, load_tokenizer
        from pandallm.train.checkpoint import Checkpoints
        from pandallm.train.fit import check_finite, check_fit, check_ranks
        from pandallm.train.forward import Forward
        from pandallm.train.groups import group_packs
        from pandallm.train.layout import check_sharding
        from pandallm.train.method import prepare_method
        from pandallm.train.optimizers import make_optimizer
        from pandallm.train.recompute import set_checkpointing
        from pandallm.train.sharding import choose_sharding, in_turns, make_mesh, shard, split_groups, stored_weights
        from pandallm.train.variants import PLAIN, check_variant_sharding, key_part

        self.start, self.spec, self.work, self.seed, self.name = start, spec, work, seed, name
        self.progress = progress if world.main else SILENT
        self.dtype = torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32
        self.packs = group_packs(Packs.open(packs))
        check_ranks(self.packs, world.size)
        self.tokenizer = load_tokenizer(start)
        sharding = "replicate"
        if world.size > 1:
            weights = stored_weights(start)
            sharding = choose_sharding(wanted, spec, weights, world)
            check_sharding(spec, sharding)
            check_variant_sharding(variant, sharding)
        mesh = make_mesh(world, sharding)
        # Weights in parts are cut on the host, and qlora rounds them there: a whole model may not fit on a GPU.
        on_host = mesh is not None or spec.method.kind == "qlora"
        with in_turns(world, 4 * weights) if mesh else contextlib.nullcontext():
            with _load_told(start, name, world):
                self.model = load_model(start, "float32", "cpu" if on_host else str(world.device))
            check_fit(self.model, self.tokenizer, self.packs, packs, start)
            check_finite(self.model, start)
            self.method = prepare_method(self.model, spec, start, seed=seed)
            set_checkpointing(self.model, spec.gradient_checkpointing)
            world = shard(self.model, world, sharding, mesh, self.dtype)
        self.world, self.device = world, world.device
        self.optimizer = make_optimizer(self.model, spec.optimizer, set(self.method.rows))
        if world.sharding != "replicate":
            split_groups(self.optimizer)
        self.forward = Forward(
            self.model,
            self.dtype,
            variant if mesh is None else PLAIN,  # the others read whole weights
            sequence_length=self.packs.sequence_length,
            micro_batch_tokens=spec.micro_batch_tokens,
        )
        self._open_watch(*watched)
        torch.manual_seed(seed)
        self.step = 0
        self.resumed_from: list[int] = []
        # Settings that do not change the weights beyond rounding may change between a stop and going on.
        settings = spec.model_dump(mode="json", exclude={"micro_batch_tokens", "gradient_checkpointing", "variant"})
        self.identity = {
            **settings,
            **key_part(variant, spec),
            "seed": seed,
            "packs": digest_file(packs / "pack.json"),
            "start": digest_file(start / "config.json"),
        }
        self.checkpoints = Checkpoints(work, self.world, keep_checkpoints, self.progress.say)
        with self._memory_told("while packing is probed"):
            self.probe = self._probe()
        self._resume()

    def _open_watch(self, held_out: Path | None, tracking: "Tracking | None") -> None:
        from pandallm.train.held_out import HeldOutWatch
        from pandallm.train.mfu import flops_per_token, peak_of
        from pandallm.train.watch import Watch

        self.watch = self.held_out = None
        if self.world.main:
            used, peak = (
                flops_per_token(self.model.config, self.packs),
                peak_of(self.device, self.spec.dtype == "bfloat16"),
            )
            self.watch = Watch(
                self.work,
                self.packs,
                self.name,
                self.device.type,
                used_flops=used / peak / self.world.size if used and peak else None,
                tracking=tracking,
                progress=self.progress,
            )
        if self.spec.watch:
            if held_out is None:
                raise BadInput(f"{self.name}: `watch` needs a folder of held-out windows.")
            tell = self.watch.tell if self.watch else lambda line: None
            tokens = self.spec.micro_batch_tokens
            self.held_out = HeldOutWatch(held_out, self.spec.watch, self.work, self.world, tokens, self.name, tell)

    def _probe(self) -> float:
        from pandallm.model.packed import packing_probe
        from pandallm.train.batch import split_examples
        from pandallm.train.sharding import in_parts

        rows = [self.packs.row(int(i)) for i in self.packs.rows_of_step(0)[:16]]
        by_row = [
            [row.input_ids[s][:256].tolist() for s in split_examples(row.example_ids)][:8]
            for row in rows
            if len(row.input_ids)
        ]
        worst = packing_probe(
            self.model, sorted(by_row, key=len, reverse=True)[:2], self.dtype, **self.forward.attention
        )
        in_parts(self.model)
        return worst

    def _resume(self) -> None:
        from pandallm.train.checkpoint import difference

        state = self.checkpoints.latest
        if state is not None:
            if changes := difference(state["identity"], self.identity):
                more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
                raise BadInput(
                    f"{self.work} holds checkpoints of another training ({'; '.join(changes[:3])}{more}): "
                    "delete it or name another folder."
                )
            self.checkpoints.load(self.model, self.optimizer)
            self.step = state["step"]
            self.resumed_from = [*state["resumed_from"], self.step]
            self.progress.say(f"{self.name}: going on after step {self.step} of {self.packs.steps}")
        if self.held_out:
            self.held_out.open(state["held_out"] if state else None)
        if self.watch:
            self.watch.open(state)

    def run(
        self,
        save_every_seconds: float,
        deadline: float | None,
        stopped: list[str],
        read_after: Collection[int],
        save_after: Collection[int],
    ) -> dict[str, Any]:
        from pandallm.train.checkpoint import SaveFailed
        from pandallm.train.feed import shares

        steps, first = self.packs.steps, self.step
        self.model.train()
        gc.collect()
        gc.freeze()  # the collector would walk the model's objects again and again
        last_save, save_cost = time.monotonic(), 0.0
        coming = shares(self.packs, self.step, self.spec.micro_batch_tokens, self.world)
        with contextlib.closing(coming), self.progress.task(self.name, steps, "steps") as task:
            if self.step:
                task.advance(self.step)
            self._score_held_out(task)
            while self.step < steps and not (self.held_out and self.held_out.stop):
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    stopped.append("the time budget")
                due = now - last_save > max(save_every_seconds, save_cost / SAVE_SHARE) or self.step in save_after
                due = due and self.step > first
                agreed = self.world.largest(STOP if stopped else SAVE if due and self.world.main else GO_ON)
                if agreed == STOP:
                    self._stop(stopped)
                if agreed == SAVE:
                    self._save()
                    last_save = time.monotonic()
                    save_cost = last_save - now
                numbers = self._one_step(coming)
                self.step += 1
                if self.step == first + 1:
                    self.checkpoints.prepare(self.model, self.optimizer)
                if self.watch and (note := self.watch.add(numbers, self.step in read_after or self.step == steps)):
                    task.advance(0, note)
                task.advance(1)
                self._score_held_out(task)
            if self.watch:
                self.watch.read()
        self._save()
        try:
            self.checkpoints.wait()
        except SaveFailed as e:
            self.progress.say(f"{e} The model is written all the same.")
            stopped = []  # there is nothing to go on from, so the stage is finished first
        self.kept = self.held_out.finish(self.model) if self.held_out else None
        # A stop signal from the last step on: the model is written first, the next call finds it all but finished.
        self._write_model()
        if self.world.largest(STOP if stopped else GO_ON) == STOP:
            raise Interrupted(f"{self._stopped(stopped)} and is saved: run the same command again to go on.")
        return self._facts()

    def _score_held_out(self, task: Task) -> None:
        """Held-out text, where it is watched and due."""
        if not (self.held_out and self.held_out.due(self.step, self.packs.steps)):
            return
        if self.watch:
            self.watch.read()  # its rate is of the steps alone
        with self._memory_told(f"while held-out text is scored after step {self.step}"):
            note = self.held_out.measure(self.forward, self.step, self.watch.seconds() if self.watch else 0.0)
        task.advance(0, note)
        if self.held_out.stop and self.step < self.packs.steps:
            self.progress.say(
                f"{self.name}: stopped after step {self.step} of {self.packs.steps}, held-out text was best after step "
                f"{self.held_out.best_step}"
            )

    def _one_step(self, coming: "Iterator[Share]") -> "StepNumbers":
        from pandallm.train.schedule import learning_rate
        from pandallm.train.step import optimizer_step

        with self._memory_told(f"in step {self.step + 1}"):
            return optimizer_step(
                self.forward,
                self.optimizer,
                next(coming),
                self.world,
                step=self.step + 1,
                lr=learning_rate(self.spec.optimizer, self.step, self.packs.steps),
                clip=self.spec.optimizer.clip,
                sources=len(self.packs.sources),
                mask=self.method.mask_gradients,
            )

    @contextlib.contextmanager
    def _memory_told(self, when: str) -> Iterator[None]:
        """Out of memory becomes a sentence that says what to change."""
        from pandallm.train.memory import is_out_of_memory, out_of_memory

        try:
            yield
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            raise out_of_memory(e, self.name, when, self.spec, self.model, self.world) from None

    def _stop(self, stopped: list[str]) -> None:
        from pandallm.train.checkpoint import SaveFailed

        told = self._stopped(stopped)
        self._save()
        try:
            self.checkpoints.wait()
        except SaveFailed as e:
            raise PandaError(f"{told}. {e} Make room and run the same command again to go on.") from None
        raise Interrupted(f"{told} and is saved: run the same command again to go on.")

    def _stopped(self, stopped: list[str]) -> str:
        reason = stopped[0] if stopped else "a signal to another process"
        return f"{self.name} was stopped by {reason} after step {self.step} of {self.packs.steps}"

    def _save(self) -> None:
        watched = self.watch.state() if self.watch else {}
        if self.held_out:
            watched["held_out"] = self.held_out.state()
        state = {"identity": self.identity, "resumed_from": self.resumed_from, **watched}
        with self._memory_told(f"while a checkpoint is taken after step {self.step}"):
            self.checkpoints.save(self.model, self.optimizer, self.step, state)

    def _write_model(self) -> None:
        from safetensors import SafetensorError

        from pandallm.model.folder import first_line, load_model, save_model
        from pandallm.train.chat import carry_template
        from pandallm.train.method import prepare_method
        from pandallm.train.sharding import gather_trained

        model, method = self.model, self.method
        if self.world.sharding != "replicate":
            trained = gather_trained(model, self.world)
            if self.world.main:  # what is not trained is as it was at the start
                model = load_model(self.start)
                method = prepare_method(model, self.spec, self.start, seed=self.seed)
                for name, tensor in trained.items():
                    model.get_parameter(name).data = tensor
        if self.world.main:
            model.eval()
            carry_template(self.packs.folder, model, self.tokenizer)
            try:
                save_model(method.finish(model, self.work).to(self.dtype), self.tokenizer, self.work / "model")
            except (OSError, SafetensorError) as e:
                raise PandaError(
                    f"{self.name}: the model could not be written to {self.work} ({first_line(e)}): make room and run the "
                    "same command again; the steps up to the last checkpoint are not repeated."
                ) from None

    def _facts(self) -> dict[str, Any]:
        if not self.watch:
            return {}
        facts: dict[str, Any] = {
            "steps": self.step,
            "trained_tokens": self.watch.trained_tokens,
            "tokens": self.watch.tokens,
            "final_loss": self.watch.final_loss,
            "resumed_from": self.resumed_from,
            "packing_probe": self.probe,
            "variant": self.forward.variant,
        }
        if self.kept:
            facts["held_out"] = self.kept
        several = {"processes": self.world.size, "sharding": self.world.sharding}
        return facts | several if self.world.size > 1 else facts


@contextlib.contextmanager
def _load_told(start: Path, name: str, world: "World") -> Iterator[None]:
    from pandallm.train.memory import is_out_of_memory, load_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
        raise load_out_of_memory(name, start, world) from None


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """On a GPU: deterministic kernels only. On a CPU ours already are, and the check costs time."""
    import torch

    if not (wanted and torch.cuda.is_available()):
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

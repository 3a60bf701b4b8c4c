"""One training stage in one process: packs in, model folder out, exact resume in between."""

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, Interrupted
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_file
from pandallm.train.spec import TrainSpec
from pandallm.train.stop import stop_signals

#: A save may take at most this share of the time: slow disks get fewer checkpoints.
SAVE_SHARE = 0.1


def train_stage(
    start: Path,
    packs: Path,
    spec: TrainSpec,
    work: Path,
    *,
    seed: int,
    device: str = "auto",
    threads: int | None = None,
    save_every_seconds: float = 60,
    deadline: float | None = None,
    deterministic: bool = True,
    keep_checkpoints: int = 2,
    progress: Progress = SILENT,
    name: str = "train",
) -> dict[str, Any]:
    """Train the model in `start` on `packs`, every step they hold; write `work/model` and `work/logs/metrics.jsonl`.

    The loss of a step is the sum of the cross entropy (nats) of its trained tokens divided by their number, whatever the
    micro-batches. A `work` folder that an earlier, stopped call left is gone on with: to the same weights bit for bit on
    one CPU with the same `threads`, and on one GPU with `deterministic`. `deadline` is a `time.monotonic()` value.
    bfloat16 keeps float32 weights and moments, computes under autocast, and saves the model in bfloat16.

    Returns facts: {"steps", "trained_tokens", "tokens", "final_loss", "resumed_from", "packing_probe"}.
    Raises BadInput when model and packs do not fit, Interrupted (after saving) on SIGTERM, SIGINT or the deadline, and
    PandaError when packing leaks or the loss is not finite (`work/logs/not_finite.json` names the examples).
    """
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with _deterministic(deterministic), stop_signals() as stopped:
            stage = _Stage(start, packs, spec, work, seed, device, name, progress, keep_checkpoints)
            try:
                return stage.run(save_every_seconds, deadline, stopped)
            finally:
                stage.checkpoints.close()
                stage.watch.close()
    finally:
        torch.set_num_threads(before)
        gc.unfreeze()


class _Stage:
    """The state of one stage: model, optimizer, where it stands."""

    def __init__(
        self,
        start: Path,
        packs: Path,
        spec: TrainSpec,
        work: Path,
        seed: int,
        device: str,
        name: str,
        progress: Progress,
        keep_checkpoints: int,
    ) -> None:
        import torch

        from pandallm.data.packs import Packs
        from pandallm.model.folder import load_model, load_tokenizer, resolve_device
        from pandallm.train.checkpoint import Checkpoints
        from pandallm.train.forward import Forward
        from pandallm.train.method import prepare_method
        from pandallm.train.optimizers import make_optimizer
        from pandallm.train.watch import Watch
        from pandallm.train.world import World

        self.spec, self.work, self.name, self.progress = spec, work, name, progress
        self.device = torch.device(resolve_device(device))
        self.dtype = torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32
        self.packs = Packs.open(packs)
        self.tokenizer = load_tokenizer(start)
        self.model = load_model(start, "float32", str(self.device))
        _check_fit(self.model, self.tokenizer, self.packs, packs, start)
        self.method = prepare_method(self.model, spec, start, seed=seed)
        if spec.gradient_checkpointing:
            # The name changed within transformers 5.
            new = hasattr(self.model, "activation_checkpointing_enable")
            enable = self.model.activation_checkpointing_enable if new else self.model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self.optimizer = make_optimizer(self.model, spec.optimizer, set(self.method.rows))
        self.world = World(self.device)
        self.forward = Forward(self.model, self.dtype)
        self.watch = Watch(work, self.packs, name, self.device.type)
        torch.manual_seed(seed)
        self.step = 0
        self.resumed_from: list[int] = []
        # Settings that do not change the weights beyond rounding may change between a stop and going on.
        settings = spec.model_dump(mode="json", exclude={"micro_batch_tokens", "gradient_checkpointing"})
        self.identity = {
            **settings,
            "seed": seed,
            "packs": digest_file(packs / "pack.json"),
            "start": digest_file(start / "config.json"),
        }
        self.checkpoints = Checkpoints(work, self.world, keep_checkpoints)
        self.probe = self._probe()
        self._resume()

    def _probe(self) -> float:
        from pandallm.model.packed import packing_probe
        from pandallm.train.batch import split_examples

        rows = [self.packs.row(int(i)) for i in self.packs.rows_of_step(0)[:16]]
        by_row = [
            [row.input_ids[s][:256].tolist() for s in split_examples(row.example_ids)][:8]
            for row in rows
            if len(row.input_ids)
        ]
        return packing_probe(self.model, sorted(by_row, key=len, reverse=True)[:2], self.dtype)

    def _resume(self) -> None:
        from pandallm.train.checkpoint import difference

        state = self.checkpoints.latest
        if state is None:
            self.watch.open(None)
            return
        if changes := difference(state["identity"], self.identity):
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise BadInput(
                f"{self.work} holds checkpoints of another training ({'; '.join(changes[:3])}{more}): "
                "delete it or name another folder."
            )
        self.checkpoints.load(self.model, self.optimizer)
        self.step = state["step"]
        self.resumed_from = [*state["resumed_from"], self.step]
        self.watch.open(state)
        self.progress.say(f"{self.name}: going on after step {self.step} of {self.packs.steps}")

    def run(self, save_every_seconds: float, deadline: float | None, stopped: list[str]) -> dict[str, Any]:
        from pandallm.model.folder import save_model
        from pandallm.train.feed import step_batches
        from pandallm.train.schedule import learning_rate
        from pandallm.train.step import optimizer_step

        steps, o = self.packs.steps, self.spec.optimizer
        self.model.train()
        gc.collect()
        gc.freeze()  # the collector would walk the model's objects again and again
        last_save, save_cost = time.monotonic(), 0.0
        with self.progress.task(self.name, steps, "steps") as task:
            if self.step:
                task.advance(self.step)
            while self.step < steps:
                if deadline is not None and time.monotonic() >= deadline:
                    stopped.append("the time budget")
                if stopped:
                    self._save()
                    self.checkpoints.wait()
                    raise Interrupted(
                        f"{self.name} was stopped by {stopped[0]} after step {self.step} of {steps} and is saved: "
                        "run the same command again to go on."
                    )
                numbers = optimizer_step(
                    self.forward,
                    self.optimizer,
                    step_batches(self.packs, self.step, self.spec.micro_batch_tokens, self.world),
                    self.world,
                    step=self.step + 1,
                    lr=learning_rate(o, self.step, steps),
                    clip=o.clip,
                    sources=len(self.packs.sources),
                    mask=self.method.mask_gradients,
                )
                self.step += 1
                if note := self.watch.add(numbers, last=self.step == steps):
                    task.advance(0, note)
                task.advance(1)
                now = time.monotonic()
                if now - last_save > max(save_every_seconds, save_cost / SAVE_SHARE) and self.step < steps:
                    self._save()
                    last_save = time.monotonic()
                    save_cost = last_save - now
            self.watch.read()
        self.checkpoints.wait()
        # A stop signal from here on would cost the last steps: the save is short, so it is finished first.
        self.model.eval()
        save_model(self.method.finish(self.model, self.work).to(self.dtype), self.tokenizer, self.work / "model")
        return {
            "steps": self.step,
            "trained_tokens": self.watch.trained_tokens,
            "tokens": self.watch.tokens,
            "final_loss": self.watch.final_loss,
            "resumed_from": self.resumed_from,
            "packing_probe": self.probe,
        }

    def _save(self) -> None:
        state = {"identity": self.identity, "resumed_from": self.resumed_from, **self.watch.state()}
        self.checkpoints.save(self.model, self.optimizer, self.step, state)


def _check_fit(model: Any, tokenizer: Any, packs: Any, folder: Path, start: Path) -> None:
    """Raise BadInput, naming both sides, when the packs were not made for this model."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise BadInput(
            f"{start}: the tokenizer has {len(tokenizer)} tokens, the model {vocabulary}: they do not belong together."
        )
    if not packs.steps:
        raise BadInput(f"{folder} holds no training step: give the stage more text or a larger budget.")
    longest = model.config.max_position_embeddings
    if packs.sequence_length > longest:
        raise BadInput(
            f"sequence_length {packs.sequence_length} is more than the {longest} positions of the model {start}."
        )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise BadInput(f"{start}: models whose output layer has a bias are not supported in training.")
    ids, mask = packs.arrays["input_ids"], packs.arrays["loss_mask"]
    block = 2**24  # tokens read at once
    largest = max(int(ids[at : at + block].max()) for at in range(0, len(ids), block))
    if largest >= vocabulary:
        raise BadInput(
            f"{folder} holds token {largest}, the model {start} has only {vocabulary}: pack with its tokenizer."
        )
    if not any(mask[at : at + block].any() for at in range(0, len(mask), block)):
        raise BadInput(f"{folder} holds no trained token: check the loss masks (`panda data show`).")


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

"""One training stage in one process: packs in, model folder out, exact resume in between."""

import contextlib
import gc
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_file, digest_json, write_json
from pandallm.train.spec import TrainSpec

#: A save may take at most this share of the time: slow disks get fewer checkpoints.
SAVE_SHARE = 0.1
#: On a GPU the numbers of this many steps stay on the device before they are read, so that it never waits for us.
STEPS_PER_READ = 16


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
        with _deterministic(deterministic), _stop_signals() as stopped:
            stage = _Stage(start, packs, spec, work, seed, device, name, progress)
            return stage.run(save_every_seconds, deadline, stopped)
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
    ) -> None:
        import torch

        from pandallm.data.packs import Packs
        from pandallm.model.folder import load_model, load_tokenizer, resolve_device

        self.spec, self.work, self.name, self.progress = spec, work, name, progress
        self.device = torch.device(resolve_device(device))
        self.dtype = torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32
        self.packs = Packs.open(packs)
        self.tokenizer = load_tokenizer(start)
        self.model = load_model(start, "float32", str(self.device))
        _check_fit(self.model, self.tokenizer, self.packs, packs, start)
        if spec.gradient_checkpointing:
            # The name changed within transformers 5.
            new = hasattr(self.model, "activation_checkpointing_enable")
            enable = self.model.activation_checkpointing_enable if new else self.model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self.optimizer = _adamw(self.model, spec)
        torch.manual_seed(seed)
        self.step = self.tokens = self.trained_tokens = 0
        self.final_loss: float | None = None
        self.resumed_from: list[int] = []
        self.seconds_before = 0.0
        self.metrics = work / "logs" / "metrics.jsonl"
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        # Settings that do not change the weights beyond rounding may change between a stop and going on.
        settings = spec.model_dump(exclude={"micro_batch_tokens", "gradient_checkpointing"})
        self.identity = digest_json(
            {
                "spec": settings,
                "seed": seed,
                "packs": digest_file(packs / "pack.json"),
                "start": digest_file(start / "config.json"),
            }
        )
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
        from pandallm.train.checkpoint import checkpoint_state, complete_checkpoints, load_checkpoint

        found = complete_checkpoints(self.work)
        if not found:
            self.metrics.write_bytes(b"")
            return
        state = checkpoint_state(found[-1])
        if state["identity"] != self.identity:
            raise BadInput(f"{self.work} holds checkpoints of another training; delete it or name another folder.")
        load_checkpoint(found[-1], self.model, self.optimizer)
        self.step, self.tokens, self.trained_tokens = state["step"], state["tokens"], state["trained_tokens"]
        self.final_loss, self.seconds_before = state["final_loss"], state["seconds"]
        self.resumed_from = [*state["resumed_from"], self.step]
        with open(self.metrics, "ab") as f:
            f.truncate(state["metrics_bytes"])
        self.progress.say(f"{self.name}: going on after step {self.step} of {self.packs.steps}")

    def run(self, save_every_seconds: float, deadline: float | None, stopped: list[str]) -> dict[str, Any]:
        from pandallm.model.folder import save_model

        steps = self.packs.steps
        self.model.train()
        gc.collect()
        gc.freeze()  # the collector would walk the model's objects again and again
        self.began = time.monotonic()
        last_save, save_cost = self.began, 0.0
        self.pending: list[dict[str, Any]] = []
        with open(self.metrics, "ab") as self.metrics_file, self.progress.task(self.name, steps, "steps") as task:
            if self.step:
                task.advance(self.step)
            while self.step < steps:
                if deadline is not None and time.monotonic() >= deadline:
                    stopped.append("the time budget")
                if stopped:
                    self._save()
                    raise Interrupted(
                        f"{self.name} was stopped by {stopped[0]} after step {self.step} of {steps} and is saved: "
                        "run the same command again to go on."
                    )
                self.pending.append(self._one_step())
                self.step += 1
                if self.device.type == "cpu" or len(self.pending) >= STEPS_PER_READ or self.step == steps:
                    note = self._read_pending()
                    task.advance(0, note)
                task.advance(1)
                now = time.monotonic()
                if now - last_save > max(save_every_seconds, save_cost / SAVE_SHARE) and self.step < steps:
                    self._save()
                    last_save = time.monotonic()
                    save_cost = last_save - now
            self._read_pending()
        # A stop signal from here on would cost the last steps: the save is short, so it is finished first.
        self.model.eval()
        save_model(self.model.to(self.dtype), self.tokenizer, self.work / "model")
        return {
            "steps": self.step,
            "trained_tokens": self.trained_tokens,
            "tokens": self.tokens,
            "final_loss": self.final_loss,
            "resumed_from": self.resumed_from,
            "packing_probe": self.probe,
        }

    def _one_step(self) -> dict[str, Any]:
        """One optimizer step. The returned numbers are still on the device."""
        import torch

        from pandallm.model.packed import packed_hidden
        from pandallm.train.batch import group_rows, micro_batch
        from pandallm.train.loss import add_by_source, head_cross_entropy
        from pandallm.train.schedule import learning_rate

        began = time.monotonic()
        sources = len(self.packs.sources)
        rows = [self.packs.row(int(i)) for i in self.packs.rows_of_step(self.step)]
        groups = group_rows([len(r.input_ids) for r in rows], self.spec.micro_batch_tokens)
        batches = [micro_batch([rows[i] for i in group], sources, self.device) for group in groups]
        trained = sum(b.trained_tokens for b in batches)
        sums_S = torch.zeros(sources, dtype=torch.float64, device=self.device)
        head = self.model.get_output_embeddings().weight
        lr = learning_rate(self.spec.optimizer, self.step, self.packs.steps)
        norm = torch.zeros((), device=self.device)
        for batch in batches:
            if not batch.trained_tokens:
                continue
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                hidden_ND = packed_hidden(self.model, batch.input_ids_1N, batch.layout)[0]
                loss_sum, losses_M = head_cross_entropy(hidden_ND, batch.predictors_M, head, batch.targets_M)
            (loss_sum / trained).backward()
            add_by_source(sums_S, losses_M, batch.source_ids_M)
        if trained:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optimizer.clip)
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = lr
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return {
            "step": self.step + 1,
            "lr": lr,
            "sums_S": sums_S,
            "norm": norm,
            "trained_S": sum(b.trained_by_source for b in batches),
            "tokens": sum(b.tokens for b in batches),
            "example_ids": sorted({i for b in batches for i in b.example_ids}),
            "began": began,
        }

    def _read_pending(self) -> str:
        """Bring the pending steps' numbers to the host, check and log them. Returns a note for the progress bar."""
        import torch

        if not self.pending:
            return ""
        numbers = torch.stack([torch.cat([p["sums_S"], p["norm"].double()[None]]) for p in self.pending]).tolist()
        now = time.monotonic()
        rate = sum(p["tokens"] for p in self.pending) / max(1e-9, now - self.pending[0]["began"])
        for p, (*sums, norm) in zip(self.pending, numbers, strict=True):
            trained = int(p["trained_S"].sum())
            if not (math.isfinite(sum(sums)) and math.isfinite(norm)):
                self._refuse_not_finite(p)
            self.tokens += p["tokens"]
            self.trained_tokens += trained
            loss = sum(sums) / trained if trained else None
            self.final_loss = self.final_loss if loss is None else loss
            line = {
                "step": p["step"],
                "steps": self.packs.steps,
                "loss": loss,
                "lr": p["lr"],
                "grad_norm": norm,
                "trained_tokens": trained,
                "tokens": p["tokens"],
                "seconds": round(self.seconds_before + now - self.began, 3),
                "tokens_per_second": round(rate, 1),
                "loss_by_source": {
                    source: total / int(n)
                    for source, total, n in zip(self.packs.sources, sums, p["trained_S"], strict=True)
                    if n
                },
            }
            self.metrics_file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
        self.pending.clear()
        self.metrics_file.flush()
        shown = "-" if self.final_loss is None else f"{self.final_loss:.3f}"
        return f"loss {shown}, {rate:,.0f} tokens/s"

    def _refuse_not_finite(self, pending: dict[str, Any]) -> None:
        ids = _example_names(self.packs, pending["example_ids"])
        path = self.work / "logs" / "not_finite.json"
        write_json(path, {"step": pending["step"], "examples": ids})
        raise PandaError(
            f"{self.name}: the loss or its gradient is not finite at step {pending['step']} (examples {', '.join(ids[:3])}"
            f"{', ...' if len(ids) > 3 else ''}; all in {path}): lower optimizer.lr or look at these examples."
        )

    def _save(self) -> None:
        from pandallm.train.checkpoint import save_checkpoint

        self._read_pending()
        os.fsync(self.metrics_file.fileno())
        state = {
            "identity": self.identity,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "final_loss": self.final_loss,
            "resumed_from": self.resumed_from,
            "seconds": round(self.seconds_before + time.monotonic() - self.began, 3),
            "metrics_bytes": self.metrics_file.tell(),
        }
        save_checkpoint(self.work, self.model, self.optimizer, self.step, state)


def _adamw(model: Any, spec: TrainSpec) -> Any:
    """AdamW (Loshchilov & Hutter 2019), fused; weight decay on matrices only, as usual for norms and biases."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    o = spec.optimizer
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=o.lr, betas=o.betas, eps=o.eps, fused=True)


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


def _example_names(packs: Any, example_ids: list[int]) -> list[str]:
    """The ids by which the corpus knows these examples."""
    import pyarrow.parquet as pq

    names = pq.read_table(packs.folder / "examples.parquet", columns=["id"]).column("id")
    return [str(names[i].as_py()) for i in example_ids]


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


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """A list that gets the signal's name on SIGTERM or SIGINT; a second one acts as usual. Main thread only."""
    stopped: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: Any) -> None:
        stopped.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    for s in before:
        signal.signal(s, stop)
    try:
        yield stopped
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)

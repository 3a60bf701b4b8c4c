"""`panda plan --probe`: a few steps of each stage on this machine, with random weights of the model's shape.

Step times depend on shapes, not on values: no base and no data are needed. Where a stage's packs are built, their first rows
are read; otherwise rows are made up of examples as long as the plan says.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pandallm.errors import PandaError
from pandallm.model.shape import ModelShape
from pandallm.store import read_json, read_jsonl, write_json
from pandallm.train.spec import TrainSpec

#: Steps of a probe; the first WARM fill caches and start threads, after SAVE a checkpoint is taken: what lies between gives the rate.
STEPS, WARM, SAVE = 20, 4, 14


def probe_stage(
    shape: ModelShape,
    spec: TrainSpec,
    *,
    packs: Path | None,
    example_tokens: float,
    row_tokens: float,
    trained_share: float,
    device: str = "auto",
    threads: int | None = None,
    steps: int = STEPS,
    scratch: Path | None = None,
) -> dict[str, Any]:
    """Train `steps` steps of a stage in a process of its own.

    example_tokens, row_tokens, trained_share: what made-up rows look like where `packs` is None. scratch: a folder on the disk that
    the run's checkpoints will go to.

    Returns what `step_seconds` gives, and {"overhead_seconds" (loading before the steps and saving after them), "peak_memory_gib" (of
    the process; on a GPU of the device), "runtime_memory_gib" (of the process before the model came)}.
    Raises PandaError with the training's own sentence where it fails.
    """
    if scratch:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="panda-probe-", dir=scratch) as name:
        folder = Path(name)
        job = {
            "shape": asdict(shape),
            "spec": spec.model_dump(mode="json", by_alias=True),
            "kind": type(spec).__name__,
            "packs": str(packs) if packs else None,
            "rows": [example_tokens, row_tokens, trained_share],
            "device": device,
            "threads": threads,
            "steps": steps,
        }
        write_json(folder / "job.json", job)
        code = "import sys; from pandallm.pipeline.plan.probe import main; main(sys.argv[1])"
        environment = dict(os.environ)
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PandaError(f"The probe failed: {last}")
        result: dict[str, Any] = read_json(folder / "result.json")
        return result


def main(name: str) -> None:
    """The probe's own process: reads job.json of the folder `name`, writes result.json."""
    import time

    import torch

    import pandallm.model.packed  # noqa: F401  its imports belong to the memory before the model comes
    from pandallm.train.loop import train_stage

    folder = Path(name)
    job = read_json(folder / "job.json")
    shape = ModelShape(**job["shape"])
    spec = _short(job["spec"], job["steps"])
    cuda = job["device"] != "cpu" and torch.cuda.is_available()
    try:
        runtime = resident_gib()
        random_model(shape, folder / "start", new_rows="new_rows" in spec.trainable)
        if job["packs"]:
            first_steps(Path(job["packs"]), folder / "packs", job["steps"])
        else:
            made_up_packs(folder / "packs", shape.vocab_size, spec, job["steps"], *job["rows"])
        began = time.monotonic()
        train_stage(
            folder / "start",
            folder / "packs",
            spec,
            folder / "work",
            seed=0,
            device=job["device"],
            threads=job["threads"],
            save_every_seconds=1e9,
            read_after=(WARM,),
            save_after=(SAVE,),
            name="probe",
        )
        wall = time.monotonic() - began
    except PandaError as e:
        print(e, file=sys.stderr)
        sys.exit(1)
    lines = list(read_jsonl(folder / "work" / "logs" / "metrics.jsonl"))
    peak = torch.cuda.max_memory_reserved() / 2**30 if cuda else _peak_gib()
    write_json(
        folder / "result.json",
        {
            **step_seconds(lines),
            "overhead_seconds": max(0.0, wall - lines[-1]["seconds"]),
            "peak_memory_gib": round(peak, 4),
            "runtime_memory_gib": round(0.0 if cuda else runtime, 4),
        },
    )


def step_seconds(lines: Sequence[Mapping[str, Any]], warm: int = WARM, saved: int = SAVE) -> dict[str, float]:
    """What the lines of a metrics.jsonl say of a stage's time, whose loop took a checkpoint after `saved` steps.

    Returns {"tokens_per_step" (mean), "seconds_per_step" (for so many tokens, by the steps after `warm` and up to `saved`; a fifth of
    them with the most and a fifth with the fewest seconds per token are left out), "warm_seconds" (what the first `warm` steps took
    more), "save_seconds" (what the steps after `saved` took more)}. Of fewer steps, what they can tell; the rest is 0.
    """
    tokens = list(itertools.accumulate((int(line["tokens"]) for line in lines), initial=0))
    ends = [0.0, *(float(line["seconds"]) for line in lines)]
    steps = len(lines)
    first, last = min(warm, steps - 1), min(saved, steps)
    # On a GPU numbers come back a few steps at a time, and lines that came together carry the same seconds.
    marks = [n for n in range(first, last + 1) if n in (0, last) or ends[n] != ends[n + 1]]
    if len(marks) < 2:
        marks = [0, last]
    spans = sorted(
        ((ends[b] - ends[a], tokens[b] - tokens[a]) for a, b in itertools.pairwise(marks)), key=lambda s: s[0] / s[1]
    )
    cut = len(spans) // 5
    kept = spans[cut : len(spans) - cut]
    rate = max(1e-9, sum(seconds for seconds, _ in kept) / sum(n for _, n in kept))
    mean = tokens[-1] / steps
    return {
        "seconds_per_step": rate * mean,
        "tokens_per_step": mean,
        "warm_seconds": max(0.0, ends[marks[0]] - rate * tokens[marks[0]]),
        "save_seconds": max(0.0, ends[-1] - ends[last] - rate * (tokens[-1] - tokens[last])),
    }


def _short(settings: Mapping[str, Any], steps: int) -> TrainSpec:
    """The stage with a budget of `steps` and without what a probe has no data for."""
    fields = {k: v for k, v in settings.items() if k in TrainSpec.model_fields}
    for budget in ("epochs", "documents", "tokens", "steps"):
        fields.pop(budget, None)
    fields.pop("watch", None)
    return TrainSpec.model_validate({**fields, "steps": steps})


def resident_gib() -> float:
    """What this process holds in memory now, in GiB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _peak_gib() -> float:
    from pandallm.pipeline.machine import peak_memory_gib

    return peak_memory_gib() or 0.0


def random_model(shape: ModelShape, folder: Path, *, new_rows: bool = False) -> None:
    """Write a model of this shape with random weights, and a tokenizer that has as many tokens (of no meaning)."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from pandallm.model.folder import save_model
    from pandallm.train.method import NEW_ROWS

    family = "qwen3" if shape.query_key_norm else "qwen2" if shape.attention_bias else "llama"
    config = AutoConfig.for_model(
        family,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        tie_word_embeddings=shape.tie_embeddings,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
    )
    if new_rows:
        setattr(config, NEW_ROWS, [max(0, shape.vocab_size - 64), shape.vocab_size])
    torch.manual_seed(0)
    words = {"</s>": 0} | {f"t{i}": i for i in range(1, shape.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="</s>")), eos_token="</s>"
    )
    save_model(AutoModelForCausalLM.from_config(config), tokenizer, folder)


def first_steps(packs: Path, out: Path, steps: int) -> None:
    """The packs folder `packs` with its first `steps` steps alone; nothing large is copied."""
    import numpy as np

    out.mkdir(parents=True)
    for file in packs.iterdir():
        if file.is_file() and file.name not in ("order.npy", "pack.json", "manifest.json"):
            (out / file.name).symlink_to(file.absolute())
    facts = read_json(packs / "pack.json")
    np.save(out / "order.npy", np.load(packs / "order.npy")[: steps * int(facts["batch_sequences"])])
    write_json(out / "pack.json", {**facts, "steps": min(steps, int(facts["steps"]))})


def made_up_packs(
    out: Path,
    vocabulary: int,
    spec: TrainSpec,
    steps: int,
    example_tokens: float,
    row_tokens: float,
    trained_share: float,
) -> None:
    """Write a packs folder of `steps` steps: random tokens in examples and rows of these sizes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True)
    row = max(2, min(spec.sequence_length, round(row_tokens)))
    example = max(2, min(row, round(example_tokens)))
    each = [example] * (row // example) + ([row % example] if row % example else [])
    if len(each) > 1 and each[-1] < 2:
        each[-2:] = [sum(each[-2:])]
    rows = steps * spec.batch_sequences
    random = np.random.default_rng(0)
    ids = random.integers(1, vocabulary, rows * row)
    mask = random.random(rows * row) < trained_share
    starts = (np.cumsum([0, *each])[:-1][None, :] + row * np.arange(rows)[:, None]).ravel()
    mask[starts] = False
    mask[starts + 1] = True  # every example trains something
    lengths = np.tile(each, rows)
    arrays = {
        "input_ids": ids.astype(np.uint16 if vocabulary <= 1 << 16 else np.uint32),
        "loss_mask": mask.astype(np.uint8),
        "example_ids": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        "source_ids": np.zeros(rows * row, np.uint8),
        "row_offsets": np.arange(rows + 1, dtype=np.int64) * row,
        "order": np.arange(rows, dtype=np.int32),
        "row_trained_tokens": mask.reshape(rows, row).sum(1).astype(np.int32),
    }
    for name, values in arrays.items():
        np.save(out / f"{name}.npy", values)
    n = len(lengths)
    table = {
        "id": pa.array([str(i) for i in range(n)]),
        "source": pa.array(["random"] * n),
        "language": pa.array(["zh"] * n),
        "tokens": pa.array(lengths, pa.int64()),
        "trained_tokens": pa.array(np.add.reduceat(mask, starts), pa.int64()),
        "utf8_bytes": pa.array(4 * lengths, pa.int64()),
        "copy": pa.array([0] * n, pa.int32()),
        "begins": pa.array([None] * n, pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(table), out / "examples.parquet")
    tokens, trained = int(lengths.sum()), int(mask.sum())
    total = {
        "unique": tokens,
        "trained": trained,
        "masked": tokens - trained,
        "truncated": 0,
        "over_budget": 0,
        "exposures": tokens,
        "trained_exposures": trained,
        "passes": 1.0,
        "share": 1.0,
    }
    facts = {
        "sequence_length": spec.sequence_length,
        "batch_sequences": spec.batch_sequences,
        "rows": rows,
        "steps": steps,
        "sources": ["random"],
        "languages": ["zh"],
        "eos_id": 0,
        "bos_id": None,
        "packing": "best_fit",
        "fill": row / spec.sequence_length,
        "examples": n,
        "examples_cut": 0,
        "warnings": [],
        "ledger": {"sources": {"random": total}, "total": total},
    }
    write_json(out / "pack.json", facts)

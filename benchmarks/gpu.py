"""Training on one GPU: model FLOPs utilisation and peak memory, against TRL and a plain Hugging Face Trainer.

    python benchmarks/gpu.py [--quick] [--model 1.1b|135m|both] [--budget SECONDS] [--work FOLDER] [--json FILE]

Llama of 1.1 B parameters (TinyLlama's shape) and of SmolLM2-135M's shape, from random weights, bfloat16 with float32 master weights. Rows of 2,048 tokens,
packed from the lengths of real instruction examples (quantiles below), every token trained. Ours runs in each variant that works here; the Trainer with the
best attention that runs here, which is named; TRL where it is installed. Each side is a process of its own; rates are of the steps after the first few.
Useful FLOPs are those of `ModelShape.training_flops_per_token`, the same for all sides; the peak is the device table's.
Synchronisations (`torch.cuda.set_sync_debug_mode`) and compilations of ours are counted in the steady state.
One call ends within --budget (under 10 minutes by default); sides that no time is left for are named. `--quick`: a tiny model and few steps on the CPU, which tries
the script itself. Not run on a GPU yet: the script has been tried on a CPU alone.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

GOALS = {"mfu": 0.5, "over_fastest_peer": 1.1, "synchronisations": 0, "recompilations": 0}
#: Tokens of 3,000 Chinese Alpaca examples with SmolLM2's tokenizer: every twentieth quantile, smallest to largest.
LENGTHS = (16, 38, 46, 53, 59, 65, 71, 79, 90, 103, 121, 143, 165, 188, 212, 237, 264, 293, 334, 410, 1170)
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "sdpa")


@dataclass(frozen=True)
class Setting:
    """One model and how it is trained. `rows` a step, `micro_rows` a forward; the first `warm` of `steps` are not counted."""

    config: dict[str, Any]
    sequence: int
    rows: int
    micro_rows: int
    steps: int
    warm: int


def _llama(width: int, layers: int, heads: int, keys: int, inner: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 2048,
    }


SETTINGS = {
    "1.1b": Setting(_llama(2048, 22, 32, 4, 5632, 32000, False), 2048, 32, 4, 32, 8),
    "135m": Setting(_llama(576, 30, 9, 3, 1536, 49152, True), 2048, 64, 16, 48, 16),
    "tiny": Setting(_llama(64, 2, 4, 2, 128, 300, True), 128, 4, 2, 6, 2),
}


def packed_rows(setting: Setting, seed: int = 0) -> list[list[int]]:
    """Lengths of the examples in each row: drawn from LENGTHS, first fit, the last one cut so that every row is full."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(setting.rows * setting.steps):
        row, room = [], setting.sequence
        while room:
            drawn = np.interp(rng.uniform(0, len(LENGTHS) - 1), np.arange(len(LENGTHS)), LENGTHS)
            row.append(min(room, max(2, int(drawn * min(1.0, setting.sequence / 512)))))
            room -= row[-1]
        rows.append(row)
    return rows


def write_data(setting: Setting, folder: Path) -> None:
    """Packs (docs/design.md) of invented tokens in the rows of `packed_rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    rows = packed_rows(setting)
    lengths = np.array([n for row in rows for n in row])
    total = int(lengths.sum())
    rng = np.random.default_rng(1)
    np.save(folder / "input_ids.npy", rng.integers(2, setting.config["vocab_size"], total).astype(np.uint16))
    np.save(folder / "loss_mask.npy", np.ones(total, np.uint8))
    np.save(folder / "example_ids.npy", np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
    np.save(folder / "source_ids.npy", np.zeros(total, np.uint8))
    np.save(folder / "row_offsets.npy", np.concatenate([[0], np.cumsum([sum(r) for r in rows])]).astype(np.int64))
    np.save(folder / "row_trained_tokens.npy", np.array([sum(r) - len(r) for r in rows], np.int32))
    np.save(folder / "order.npy", np.arange(len(rows), dtype=np.int32))
    count = len(lengths)
    table = {
        "id": [f"example-{i}" for i in range(count)],
        "source": ["invented"] * count,
        "language": ["zh"] * count,
        "tokens": lengths,
        "trained_tokens": lengths - 1,
        "utf8_bytes": lengths,
    }
    pq.write_table(pa.table(table), folder / "examples.parquet")
    facts = {
        "sequence_length": setting.sequence,
        "batch_sequences": setting.rows,
        "rows": len(rows),
        "steps": setting.steps,
        "sources": ["invented"],
        "languages": ["zh"],
        "eos_id": 0,
        "ledger": {"total": {"exposures": total, "trained_exposures": total - count}},
    }
    (folder / "pack.json").write_text(json.dumps(facts))


def write_model(setting: Setting, folder: Path) -> None:
    """A random Llama with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**setting.config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    vocabulary = {"<eos>": 0, "<pad>": 1}
    for piece in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[piece] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)


def useful_flops_per_token(setting: Setting) -> float:
    """Forward and backward of one token; its mean context is half of what attention counts causally."""
    from pandallm.model.shape import shape_of_config

    rows = packed_rows(setting)
    squares = sum(n * n for row in rows for n in row)
    total = sum(n for row in rows for n in row)
    examples = sum(len(row) for row in rows)
    shape = shape_of_config({"model_type": "llama", **setting.config})
    return shape.training_flops_per_token(squares / total, 1 - examples / total)


class Clock:
    """Tokens per second and peak memory of the steps after the first `warm`."""

    def __init__(self, setting: Setting, device: str) -> None:
        self.setting, self.cuda, self.began, self.step = setting, device == "cuda", 0.0, 0

    def _now(self) -> float:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def after_step(self) -> None:
        self.step += 1
        if self.step == self.setting.warm:
            self.began = self._now()

    def measured(self) -> dict[str, Any]:
        """Call right after the last step."""
        seconds = self._now() - self.began
        tokens = (self.step - self.setting.warm) * self.setting.rows * self.setting.sequence
        measured: dict[str, Any] = {"tokens_per_second": tokens / seconds, "steps": self.step - self.setting.warm}
        if self.cuda:
            import torch

            measured["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return measured


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`train_stage` in the job's variant. Synchronisations: those of `optimizer_step`, after the warm-up."""
    import torch

    import pandallm.train.step as step_module
    from pandallm.train.compiled import compilations
    from pandallm.train.loop import train_stage
    from pandallm.train.spec import OptimizerSpec, TrainSpec

    setting, device = SETTINGS[job["setting"]], job["device"]
    clock, cuda = Clock(setting, device), device == "cuda"
    counted = {"synchronisations": 0, "compilations": 0}
    measured: dict[str, Any] = {}
    one_step = step_module.optimizer_step

    def watched_step(*positional: Any, **named: Any) -> Any:
        steady = clock.step >= setting.warm
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if cuda and steady:
                torch.cuda.set_sync_debug_mode("warn")
            numbers = one_step(*positional, **named)
            if cuda and steady:
                torch.cuda.set_sync_debug_mode("default")
        counted["synchronisations"] += sum("synchroniz" in str(w.message) for w in seen)
        clock.after_step()
        if clock.step == setting.warm:
            counted["compilations"] = compilations()
        if clock.step == setting.steps:
            measured.update(clock.measured())
            counted["compilations"] = compilations() - counted["compilations"]
        return numbers

    step_module.optimizer_step = watched_step
    try:
        spec = TrainSpec(
            epochs=1,
            sequence_length=setting.sequence,
            batch_sequences=setting.rows,
            micro_batch_tokens=setting.micro_rows * setting.sequence,
            dtype="bfloat16",
            optimizer=OptimizerSpec(lr=1e-5),
        )
        done = train_stage(
            Path(job["model"]), Path(job["packs"]), spec, Path(job["work"]), seed=1, device=device, variant=job["variant"],
            threads=job.get("threads"),
            save_every_seconds=1e9, deterministic=False,
        )  # fmt: skip
    finally:
        step_module.optimizer_step = one_step
    none = {} if cuda else {"synchronisations": None}
    return {**measured, **counted, **none, "loss": done["final_loss"], "attention": "varlen" if cuda else "by example"}


def peer_rows(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The packs' rows as lists: ids, positions that restart, labels without the first token of an example."""
    packs = Path(job["packs"])
    ids, examples = np.load(packs / "input_ids.npy"), np.load(packs / "example_ids.npy")
    sequence = SETTINGS[job["setting"]].sequence
    first = np.concatenate([[True], np.diff(examples) != 0])
    starts = np.flatnonzero(first)
    position = np.arange(len(ids)) - np.repeat(starts, np.diff([*starts, len(ids)]))
    labels = np.where(first, -100, ids.astype(np.int64))
    return [
        {
            "input_ids": ids[at : at + sequence].tolist(),
            "position_ids": position[at : at + sequence].tolist(),
            "labels": labels[at : at + sequence].tolist(),
        }
        for at in range(0, len(ids), sequence)
    ]


def hugging_face(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' Trainer on the same packed rows, with positions that restart."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    setting, device = SETTINGS[job["setting"]], job["device"]
    model: Any = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=torch.float32, attn_implementation=job["attention"]
    )
    clock, measured = Clock(setting, device), {}

    class Timed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            clock.after_step()
            if clock.step == setting.steps:
                measured.update(clock.measured())

    def flat(rows: list[dict[str, Any]]) -> dict[str, Any]:
        # Flash attention takes one long row and finds examples by their positions; masks are smaller row by row.
        shape = (1, -1) if job["attention"].startswith("flash") else (len(rows), -1)
        return {key: torch.tensor([row[key] for row in rows]).view(shape) for key in rows[0]}

    arguments = TrainingArguments(
        output_dir=str(Path(job["work"]) / "out"),
        per_device_train_batch_size=setting.micro_rows,
        gradient_accumulation_steps=setting.rows // setting.micro_rows,
        num_train_epochs=1,
        learning_rate=1e-5,
        lr_scheduler_type="linear",
        bf16=True,
        optim="adamw_torch_fused",
        use_cpu=device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=peer_rows(job), data_collator=flat, callbacks=[Timed()]).train()
    return {**measured, "attention": job["attention"]}


def trl(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer with its own packing of the same examples."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    library = importlib.import_module("trl")
    setting, device = SETTINGS[job["setting"]], job["device"]
    model: Any = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=torch.float32, attn_implementation=job["attention"]
    )
    packs = Path(job["packs"])
    ids, examples = np.load(packs / "input_ids.npy"), np.load(packs / "example_ids.npy")
    texts = [{"input_ids": part.tolist()} for part in np.split(ids, np.flatnonzero(np.diff(examples)) + 1)]
    clock, measured = Clock(setting, device), {}

    class Timed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            clock.after_step()
            if clock.step == min(setting.steps, state.max_steps):
                measured.update(clock.measured())

    arguments = library.SFTConfig(
        output_dir=str(Path(job["work"]) / "out"),
        per_device_train_batch_size=setting.micro_rows,
        gradient_accumulation_steps=setting.rows // setting.micro_rows,
        num_train_epochs=1,
        learning_rate=1e-5,
        max_length=setting.sequence,
        packing=True,
        bf16=True,
        optim="adamw_torch_fused",
        use_cpu=device == "cpu",
        gradient_checkpointing=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = library.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(texts),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[Timed()],
    )
    fill = sum(map(len, trainer.train_dataset["input_ids"])) / (len(trainer.train_dataset) * setting.sequence)
    trainer.train()
    # Its rows are as full as its packing makes them.
    return {
        **measured,
        "tokens_per_second": measured["tokens_per_second"] * fill,
        "fill": fill,
        "attention": job["attention"],
    }


SIDES = {"ours": ours, "hugging_face": hugging_face, "trl": trl}


def run_side(name: str, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One side in a process of its own: what it measured, or {"error"}."""
    work = Path(job["work"])
    work.mkdir(parents=True, exist_ok=True)
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    (work / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(Path(__file__).resolve()), "--side", name, str(work / "job.json")]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {seconds:.0f} s"}
    if done.returncode or not answer.exists():
        lines = done.stderr.strip().splitlines()
        return {"error": (lines[-1] if lines else f"exit code {done.returncode}")[:300]}
    return dict(json.loads(answer.read_text()))


def sides_of(device: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, function and job of every side, in the order in which they run: the plain forms first, should time run out."""
    plain = {"layers": "bfloat16" if device == "cpu" else "plain", "compiled": False}
    sides: list[tuple[str, str, dict[str, Any]]] = [("pandallm", "ours", {"variant": plain})]
    available = ATTENTIONS if importlib.util.find_spec("flash_attn") or device == "cuda" else ("sdpa",)
    sides += [(f"Trainer, {a}", "hugging_face", {"attention": a}) for a in available]
    if importlib.util.find_spec("trl"):
        sides += [(f"TRL, {a}", "trl", {"attention": a}) for a in available]
    if device == "cuda":
        compiled = {"layers": "plain", "compiled": True}
        sides.insert(1, ("pandallm, compiled", "ours", {"variant": compiled}))
        if importlib.util.find_spec("liger_kernel"):
            sides.append(("pandallm, Liger", "ours", {"variant": {"layers": "liger", "compiled": False}}))
    return sides


def measure(name: str, device: str, work: Path, until: float) -> dict[str, Any]:
    """All sides on one model."""
    setting = SETTINGS[name]
    model, packs = work / name / "model", work / name / "packs"
    write_model(setting, model)
    write_data(setting, packs)
    flops, peak = useful_flops_per_token(setting), None
    if device == "cuda":
        import torch

        from pandallm.train.mfu import peak_of

        peak = peak_of(torch.device("cuda"), True)
    found: dict[str, Any] = {}
    for title, side, more in sides_of(device):
        if time.monotonic() > until - 20:
            found[title] = {"error": "no time was left"}
            continue
        slug = "".join(c if c.isalnum() else "-" for c in title.lower())
        job = {"setting": name, "device": device, "model": str(model), "packs": str(packs)}
        job |= {"work": str(work / name / slug), **more}
        got = run_side(side, job, until - time.monotonic())
        if "tokens_per_second" in got and peak:
            got["mfu"] = got["tokens_per_second"] * flops / peak
        found[title] = got
        print(f"{name}: {title}: {json.dumps(got)}", file=sys.stderr, flush=True)
    return {"flops_per_token": flops, "peak_flops": peak, "sides": found}


def judged(figures: dict[str, Any]) -> dict[str, Any]:
    """Our best against the fastest peer, and whether every goal is met; None where a part was not measured."""
    summary: dict[str, Any] = {}
    for name, measured in figures.items():
        done = {t: s for t, s in measured["sides"].items() if "tokens_per_second" in s}
        mine = {t: s for t, s in done.items() if t.startswith("pandallm")}
        peers = {t: s for t, s in done.items() if t not in mine}
        if not mine:
            summary[name] = {"met": False}
            continue
        best = max(mine, key=lambda t: mine[t]["tokens_per_second"])
        fastest = max(peers, key=lambda t: peers[t]["tokens_per_second"]) if peers else None
        ratio = mine[best]["tokens_per_second"] / peers[fastest]["tokens_per_second"] if fastest else None
        of_best = mine[best]
        summary[name] = {
            "ours": best,
            "fastest_peer": fastest,
            "over_fastest_peer": ratio,
            "mfu": of_best.get("mfu"),
            "met": bool(
                (of_best.get("mfu") or 0) >= GOALS["mfu"]
                and ratio is not None
                and ratio >= GOALS["over_fastest_peer"]
                and of_best["synchronisations"] == GOALS["synchronisations"]
                and of_best["compilations"] == GOALS["recompilations"]
            ),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model on the CPU: tries the script, measures nothing of use"
    )
    parser.add_argument("--model", choices=("1.1b", "135m", "both"), default="both")
    parser.add_argument("--budget", type=float, default=560, metavar="SECONDS")
    parser.add_argument("--work", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--json")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, path = options.side
        job = json.loads(Path(path).read_text())
        answer = SIDES[name](job)
        (Path(job["work"]) / "answer.json").write_text(json.dumps(answer))
        return
    import torch

    if not options.quick and not torch.cuda.is_available():
        sys.exit("There is no GPU here; `--quick` tries the script on the CPU.")
    names = ["tiny"] if options.quick else ["1.1b", "135m"] if options.model == "both" else [options.model]
    began, device, figures = time.monotonic(), "cpu" if options.quick else "cuda", {}
    for number, name in enumerate(names):
        share = options.budget * (number + 1) / len(names)
        figures[name] = measure(name, device, options.work.absolute(), began + share)
    summary = judged(figures)
    print(
        f"{'model':6} {'side':28} {'attention':18} {'tokens/s':>10} {'MFU':>6} {'GiB':>6} {'syncs':>5} {'compilations':>12}"
    )
    for name, measured in figures.items():
        for title, side in measured["sides"].items():
            if "error" in side:
                print(f"{name:6} {title:28} {side['error']}")
                continue
            mfu, memory = side.get("mfu"), side.get("peak_memory_gib")
            print(
                f"{name:6} {title:28} {side['attention']:18} {side['tokens_per_second']:10.0f} {'-' if mfu is None else f'{mfu:.1%}':>6} "
                f"{'-' if memory is None else f'{memory:.1f}':>6} {side.get('synchronisations', '-')!s:>5} {side.get('compilations', '-')!s:>12}"
            )
    print(json.dumps(summary))
    command = "python benchmarks/gpu.py" + (" --quick" if options.quick else "")
    met = all(s["met"] for s in summary.values())
    write(options.json, result("gpu", {"models": figures, "summary": summary}, GOALS, met, command))


if __name__ == "__main__":
    main()

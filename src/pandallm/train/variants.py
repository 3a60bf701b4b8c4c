"""Which of several safe ways computes a stage: a fixed rule on CPUs and for small models, a short probe on a GPU.

A variant is a small dict, resolved once before a stage's key is made and then part of it, as results differ by rounding:
`layers`: `plain` (torch's own), `bfloat16` (`model/bfloat16_cpu.py`), `onednn` (`model/onednn.py`) or `liger`;
`compiled`: decoder layers through torch.compile with static shapes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_file, read_json, write_json
from pandallm.train.spec import TrainSpec

#: Models with fewer weights in their layers take the rule on a GPU too: a probe would cost more than it gains.
MIN_PROBED_WEIGHTS = 50_000_000
#: A variant must be faster than the plain one by this share to be taken.
MIN_GAIN = 0.03
#: Largest relative difference of loss and gradient norm from the plain variant's that counts as rounding.
SAFE_DIFFERENCE = 0.02
WARM_UP, TIMED = 2, 5
PROBE_SECONDS = 600

PLAIN: dict[str, Any] = {"layers": "plain", "compiled": False}


def resolve_variant(
    start: Path,
    spec: TrainSpec,
    device: str,
    *,
    remembered: Path | None = None,
    processes: int = 1,
    progress: Progress = SILENT,
    name: str = "train",
) -> dict[str, Any]:
    """The variant that trains the model in `start` as `spec` (its dtype resolved) says.

    `remembered`: a JSON file of what earlier probes picked; without it nothing is probed. Several processes are not probed.
    Raises BadInput for a variant that cannot run here.
    """
    from pandallm.model.folder import resolve_device

    check_variant(spec, device)
    fixed = _rule(start, spec, device)
    if spec.variant == "plain":
        return dict(PLAIN)
    if spec.variant == "compiled":
        return {**PLAIN, "compiled": True}
    if spec.variant == "liger":
        return {**PLAIN, "layers": "liger"}
    resolved = resolve_device(device)
    if not resolved.startswith("cuda") or processes > 1 or remembered is None:
        return fixed
    if layer_weights(start) < MIN_PROBED_WEIGHTS:
        return fixed
    return _probed(start, spec, resolved, remembered, progress, name)  # not run on a GPU yet


def check_variant(spec: TrainSpec, device: str) -> None:
    """Raise BadInput where the variant that the recipe names cannot run on this device."""
    from pandallm.model.folder import resolve_device
    from pandallm.train.liger import liger_installed

    if spec.variant != "liger":
        return
    if not liger_installed():
        raise BadInput("variant: liger needs the package liger-kernel: `pip install liger-kernel`.")
    if not resolve_device(device).startswith("cuda"):
        raise BadInput("variant: liger needs a GPU; leave variant out or use plain.")


def check_variant_sharding(variant: Mapping[str, Any], sharding: str) -> None:
    """Raise BadInput for a variant that does not go with weights in parts."""
    if sharding != "replicate" and (variant["compiled"] or variant["layers"] == "liger"):
        raise BadInput(f"variant: compiled and liger train whole models; with runtime.sharding {sharding} use plain.")


def key_part(variant: Mapping[str, Any], spec: TrainSpec) -> dict[str, Any]:
    """What of a variant goes into the stage's key: nothing where it is what small models on a CPU have always used."""
    usual = ("plain", "bfloat16") if spec.dtype == "bfloat16" else ("plain",)
    return {} if variant["layers"] in usual and not variant["compiled"] else {"variant": dict(variant)}


def layer_weights(start: Path) -> int:
    """Weights of the matrices in the layers of a model folder, read from the files' headers."""
    import math

    from safetensors import safe_open

    count = 0
    for file in sorted(start.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118  no dict
                shape = tensors.get_slice(key).get_shape()
                if ".layers." in key and len(shape) == 2:
                    count += math.prod(shape)
    return count


def _rule(start: Path, spec: TrainSpec, device: str) -> dict[str, Any]:
    """On a CPU, from processor, dtype and size alone, so that two runs on one machine compute the same bits."""
    from pandallm.model.folder import resolve_device
    from pandallm.model.onednn import MIN_WEIGHTS, onednn_here

    if resolve_device(device) != "cpu":
        return dict(PLAIN)
    if spec.dtype == "bfloat16":
        return {**PLAIN, "layers": "bfloat16"}
    helps = onednn_here() and layer_weights(start) >= MIN_WEIGHTS
    return {**PLAIN, "layers": "onednn" if helps else "plain"}


def candidates(start: Path, device: str) -> list[dict[str, Any]]:
    """What a probe compares on a GPU, plain first and liger last, since it changes the model for good."""
    from pandallm.train.liger import liger_installed

    found = [dict(PLAIN), {**PLAIN, "compiled": True}]
    if device.startswith("cuda") and liger_installed():
        found.append({**PLAIN, "layers": "liger"})
    return found


def _probed(
    start: Path, spec: TrainSpec, device: str, remembered: Path, progress: Progress, name: str
) -> dict[str, Any]:
    """What an earlier probe of this model, device and setting picked, or what a new one picks."""
    import torch

    situation = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "config": digest_file(start / "config.json"),
        "dtype": spec.dtype,
        "micro_batch_tokens": spec.micro_batch_tokens,
        "sequence_length": spec.sequence_length,
        "gradient_checkpointing": spec.gradient_checkpointing,
    }
    known: list[dict[str, Any]] = read_json(remembered)["probes"] if remembered.exists() else []
    for entry in known:
        if entry["situation"] == situation:
            return dict(entry["picked"])
    progress.say(f"{name}: comparing ways to compute this model on {situation['device']}")
    results = run_probe(start, spec, device, candidates(start, device))
    picked = pick(results)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    write_json(remembered, {"probes": [*known, {"situation": situation, "picked": picked, "results": results}]})
    progress.say(f"{name}: {told(results, picked)}")
    return picked


def pick(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fastest safe variant of a probe's results; the plain one (the first) unless another gains enough."""
    plain = results[0]
    best = plain
    for result in results[1:]:
        if result["seconds"] is None or plain["seconds"] is None:
            continue
        same = all(abs(result[k] - plain[k]) <= SAFE_DIFFERENCE * abs(plain[k]) for k in ("loss", "norm"))
        if same and result["seconds"] < min(best["seconds"], plain["seconds"] * (1 - MIN_GAIN)):
            best = result
    return dict(best["variant"])


def told(results: Sequence[Mapping[str, Any]], picked: Mapping[str, Any]) -> str:
    """One sentence on a probe: what was picked, and how long each took."""
    times = [
        f"{variant_name(r['variant'])} {r['seconds'] * 1000:.0f} ms"
        if r["seconds"] is not None
        else f"{variant_name(r['variant'])} failed"
        for r in results
    ]
    return f"variant {variant_name(picked)} picked ({', '.join(times)} a micro-batch)"


def variant_name(variant: Mapping[str, Any]) -> str:
    """A word for it: plain, onednn, compiled, ..."""
    return "compiled" if variant["compiled"] and variant["layers"] == "plain" else str(variant["layers"])


def run_probe(start: Path, spec: TrainSpec, device: str, variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Time variants in a process of its own, whose memory and compiled code are gone afterwards.

    Returns for each {"variant", "seconds" of a micro-batch or None, "loss", "norm"} or {.., "error"}; plain alone where the process dies.
    """
    job = {"start": str(start), "spec": spec_for_probe(spec), "device": device, "variants": list(map(dict, variants))}
    command = [sys.executable, "-m", "pandallm.train.variants", json.dumps(job)]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS)
        return list(json.loads(done.stdout.strip().splitlines()[-1]))
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        return [{"variant": dict(PLAIN), "seconds": None, "error": "the probe ended early"}]


def spec_for_probe(spec: TrainSpec) -> dict[str, Any]:
    """The settings that a probe's timing depends on."""
    kept = ("dtype", "micro_batch_tokens", "sequence_length", "gradient_checkpointing")
    return {key: getattr(spec, key) for key in kept}


def time_variants(
    start: Path, settings: Mapping[str, Any], device: str, variants: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Forward and backward of invented micro-batches by each variant, in this process; the median of a few."""
    import statistics
    import time

    import numpy as np
    import torch

    from pandallm.data.packs import PackedRow
    from pandallm.model.folder import load_model
    from pandallm.train.batch import micro_batch
    from pandallm.train.forward import Forward
    from pandallm.train.recompute import set_checkpointing

    dtype = torch.bfloat16 if settings["dtype"] == "bfloat16" else torch.float32
    longest, tokens = settings["sequence_length"], settings["micro_batch_tokens"]
    model = load_model(start, "float32", device)
    model.train()
    set_checkpointing(model, settings["gradient_checkpointing"])
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(WARM_UP + TIMED):
        # Lengths as instruction data has them: most short, a few long.
        lengths = np.minimum(rng.lognormal(np.log(longest / 8), 1.0, 64 + tokens // 8).astype(int) + 2, longest)
        lengths = lengths[: max(1, int(np.searchsorted(np.cumsum(lengths), tokens, side="right")))]
        total = int(lengths.sum())
        ids = rng.integers(0, model.config.vocab_size, total)
        examples = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
        row = PackedRow(ids, np.ones(total, np.uint8), examples, np.zeros(total, np.uint8))
        batches.append(micro_batch([row], 1, device))
    results = []
    for variant in variants:
        result: dict[str, Any] = {"variant": dict(variant), "seconds": None}
        try:
            forward = Forward(model, dtype, variant, sequence_length=longest, micro_batch_tokens=tokens)
            spent = []
            for batch in batches:
                model.zero_grad(set_to_none=True)
                began = time.perf_counter()
                forward.begin_step()
                loss_sum, _ = forward(batch)
                (loss_sum / batch.trained_tokens).backward()
                forward.end_step()
                loss = float(loss_sum.detach()) / batch.trained_tokens  # waits for the device
                spent.append(time.perf_counter() - began)
            squares = [p.grad.float().square().sum() for p in model.parameters() if p.grad is not None]
            norm = float(torch.stack(squares).sum().sqrt())
            result |= {"seconds": statistics.median(spent[WARM_UP:]), "loss": loss, "norm": norm}
        except Exception as e:  # a variant that fails is not taken, whatever the reason
            result["error"] = f"{type(e).__name__}: {e}".splitlines()[0][:200]
        results.append(result)
    return results


def _main() -> None:
    job = json.loads(sys.argv[1])
    sys.stdout, out = sys.stderr, sys.stdout  # what libraries print must not mix with the answer
    results = time_variants(Path(job["start"]), job["spec"], job["device"], job["variants"])
    print(json.dumps(results), file=out)


if __name__ == "__main__":
    _main()

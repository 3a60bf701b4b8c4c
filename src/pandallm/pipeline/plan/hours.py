"""Hours of a stage: measured rates where there are some, else a share of the device's peak rate; always with an interval."""

import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.devices import DeviceSpec
from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.memory import Kind
from pandallm.store import read_json, write_json
from pandallm.train.loop import SAVE_SHARE
from pandallm.train.spec import TrainSpec

RATES = "rates.json"
#: How far actual hours may lie from predicted ones, as a factor. Only the first was checked against runs (benchmarks/planner_calibration.py);
#: the others are judgement.
ERROR = {"probe": 1.15, "same model": 1.3, "this device": 1.6, "guess": 1.6, "guess on a CPU": 3.0}
#: Share of the peak rate that training reaches without a measurement: by width of the model.
GPU_SHARES = ((4096, 0.45), (2048, 0.4), (1024, 0.3), (0, 0.2))
CPU_SHARE = 0.4
#: Step time by how weights lie, one process being 1: judgement, to order settings that fit; links differ.
SHARDING_COST = {"replicate": 1.0, "shard_gradients": 1.02, "hybrid": 1.05, "shard_all": 1.08}
#: Time of a token that is only scored, by that of one that is trained: forward without backward.
FORWARD_SHARE = 1 / 3
#: Loading, probing and saving one byte of weights; and starting.
SECONDS_PER_BYTE, START_SECONDS = 4e-9, 8.0


@dataclass(frozen=True)
class Place:
    """What a plan is for. `name`: as in the table of devices, or this processor."""

    name: str
    count: int
    device: DeviceSpec
    kind: Kind
    threads: int | None = None  # of a CPU
    per_node: int = 8

    @property
    def label(self) -> str:
        return f"{self.count}x{self.name}" if self.kind == "gpu" else self.name

    def memory_bytes(self) -> float:
        return self.device.memory_gb * 1e9


@dataclass(frozen=True)
class Hours:
    """Hours with an interval. `by`: a key of ERROR. seconds: from the first step to the last one's end, with checkpoints and
    held-out text, without loading before and writing after. seconds_per_step: of a step alone."""

    hours: float
    low: float
    high: float
    by: str
    seconds: float
    seconds_per_step: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rate_key(place: Place, shape: ModelShape, spec: TrainSpec, dtype: str) -> dict[str, Any]:
    """What a measured rate is of."""
    return {
        "device": place.name,
        "threads": place.threads,
        "shape": asdict(shape),
        "dtype": dtype,
        "method": spec.method.kind,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "sequence_length": spec.sequence_length,
        "batch_sequences": spec.batch_sequences,
        "micro_batch_tokens": spec.micro_batch_tokens,
    }


def read_rates(store: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """What probes have measured here; none where there is no such file.

    A file or a line that is damaged is left out, with a sentence in `notes`.
    """
    file = store / RATES
    if not file.exists():
        return []
    said = [] if notes is None else notes
    try:
        lines = read_json(file)
    except (BadInput, OSError) as e:
        said.append(
            f"warning: what probes measured is left out: {str(e).rstrip('.')}. The next `panda plan --probe` writes it anew."
        )
        return []
    whole = [line for line in lines if _is_rate(line)] if isinstance(lines, list) else []
    if not isinstance(lines, list) or len(whole) < len(lines):
        damaged = f"{len(lines) - len(whole)} of {len(lines)} entries of " if isinstance(lines, list) else ""
        said.append(
            f"warning: {damaged}{file}, what probes measured, are damaged and left out; measure them again with `panda plan --probe`."
        )
    return whole


def _is_rate(line: Any) -> bool:
    """Whether this is a line as `remember_rate` writes it."""
    if not isinstance(line, dict):
        return False
    above_zero = ("flops_per_second", "seconds_per_step", "tokens_per_step", "micro_batch_tokens")
    try:
        numbers = [1.0 * line[k] for k in above_zero]  # refuses text
        numbers.append(ModelShape(**line["shape"]).parameters)
        others = [1.0 * line[k] for k in ("warm_seconds", "save_seconds", "overhead_seconds")]
        return all(0 < n < math.inf for n in numbers) and all(0 <= n < math.inf for n in others)
    except (KeyError, TypeError, ValueError):
        return False


def remember_rate(
    store: Path, key: Mapping[str, Any], result: Mapping[str, Any], flops_per_token: float
) -> dict[str, Any]:
    """Keep what a probe measured; the newest of a key replaces the older ones. Returns the line."""
    line = {
        **key,
        **result,
        "flops_per_second": flops_per_token * result["tokens_per_step"] / result["seconds_per_step"],
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    others = [r for r in read_rates(store) if any(r.get(k) != v for k, v in key.items())]
    write_json(store / RATES, [*others, line])
    return line


def stage_hours(
    place: Place,
    shape: ModelShape,
    spec: TrainSpec,
    *,
    dtype: str,
    steps: int,
    tokens: float,
    flops: float,
    rates: Sequence[Mapping[str, Any]],
    sharding: str = "replicate",
    token_error: float = 0.0,
    scored_tokens: float = 0.0,
    save_every_seconds: float = math.inf,
) -> Hours:
    """Hours of `steps` steps over `tokens` tokens on all devices of the place.

    flops: forward and backward of the stage, with what is computed again. token_error: relative error of `tokens`. scored_tokens: of
    held-out text, each evaluation's counted. save_every_seconds: between checkpoints, whose cost only a probe knows.
    """
    key = rate_key(place, shape, spec, dtype)
    overhead = START_SECONDS + SECONDS_PER_BYTE * 4 * shape.parameters
    warm = save = 0.0
    found = _best(rates, key, shape)
    if found is not None and found[1] == "probe":
        rate, by = found
        per_token = rate["seconds_per_step"] / rate["tokens_per_step"]
        seconds = per_token * tokens / place.count
        warm, save, overhead = (float(rate[k]) for k in ("warm_seconds", "save_seconds", "overhead_seconds"))
    else:
        if found is not None:
            rate, by = found
            speed = float(rate["flops_per_second"])
        elif place.kind == "cpu":
            by, speed = "guess on a CPU", CPU_SHARE * _peak(place.device, dtype)
        else:
            share = next(s for width, s in GPU_SHARES if shape.hidden_size >= width)
            by, speed = "guess", share * _peak(place.device, dtype)
        seconds = flops / (speed * place.count)
    if place.count > 1:
        seconds *= SHARDING_COST[sharding]
    each = seconds / max(1, steps)
    seconds += warm + seconds * FORWARD_SHARE * scored_tokens / max(1.0, tokens)
    # The loop saves less often where a save takes more than a tenth of the time.
    seconds += save * (seconds // max(save_every_seconds, save / SAVE_SHARE))
    total = (seconds + overhead) / 3600
    factor = math.exp(math.hypot(math.log(ERROR[by]), math.log1p(token_error)))
    return Hours(total, total / factor, total * factor, by, seconds, each)


def scored_tokens(spec: TrainSpec, steps: int, tokens: float) -> float:
    """Tokens of held-out text that a stage of `steps` steps scores, which watches `tokens` of them: at the start, every so many steps
    and at the end; 0 without `watch`. Early stop is not foreseen."""
    return tokens * (1 + math.ceil(steps / spec.watch.every)) if spec.watch else 0.0


def _peak(device: DeviceSpec, dtype: str) -> float:
    return 1e12 * (device.fp32_tflops if dtype == "float32" else device.bf16_tflops)


def _best(
    rates: Sequence[Mapping[str, Any]], key: Mapping[str, Any], shape: ModelShape
) -> tuple[Mapping[str, Any], str] | None:
    here = [r for r in rates if all(r.get(k) == key[k] for k in ("device", "threads", "dtype"))]
    for rate in here:
        if all(rate.get(k) == v for k, v in key.items()):
            return rate, "probe"
    same = [r for r in here if r["shape"] == key["shape"]]
    if same:
        return min(same, key=lambda r: abs(math.log(r["micro_batch_tokens"] / key["micro_batch_tokens"]))), "same model"
    near = [(abs(math.log(ModelShape(**r["shape"]).parameters / shape.parameters)), i) for i, r in enumerate(here)]
    near = [n for n in near if n[0] < math.log(8)]
    return (here[min(near)[1]], "this device") if near else None


#: Float32 operations a core does in a cycle at most, by the widest instructions it has, and the part of them that products of matrices
#: reach (220 GFLOP/s of 333 on two cores of an AMD EPYC with AVX-512).
CYCLE_FLOPS = {"avx512f": 64, "avx2": 32}
PRODUCT_SHARE = 0.65
CLOCK_HZ = 2.6e9


def this_cpu(threads: int | None) -> Place:
    """The processor of this machine: its rate by cores and instructions, bfloat16 twice that where it has instructions for it."""
    from pandallm.pipeline.machine import machine

    info, flags = machine(), _flags()
    cores = os.cpu_count() or 1
    used = min(threads or cores, cores)
    each = next((n for flag, n in CYCLE_FLOPS.items() if flag in flags), 16)
    float32 = used * CLOCK_HZ * each * PRODUCT_SHARE / 1e12
    device = DeviceSpec(
        bf16_tflops=(2.0 if has_bfloat16() else 0.25) * float32,  # emulated otherwise
        fp32_tflops=float32,
        memory_gb=max(1e-3, float(info.get("memory_gib") or 16.0) * 2**30 / 1e9),
        bandwidth_gb_s=10.0,
    )
    return Place(str(info["processor"] or platform.machine() or "CPU"), 1, device, "cpu", threads=used)


def _flags() -> set[str]:
    """What /proc/cpuinfo says that the processor can do; nothing where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def has_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions, as `model.folder.resolve_dtype` asks torch."""
    return bool(_flags() & {"avx512_bf16", "amx_tile"})


def gpus_here() -> list[str]:
    """Names of this machine's GPUs: by torch where a run has loaded it, else by NVIDIA's driver; none where it does not tell."""
    if (torch := sys.modules.get("torch")) is not None:
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("Model:"):
                    names.append(line.split(":", 1)[1].strip())
        except OSError:
            continue
    return names

"""What was predicted before a stage trained, and what it then took."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput
from pandallm.store import read_json, read_jsonl

if TYPE_CHECKING:
    from pandallm.pipeline.plan.hours import Place
    from pandallm.pipeline.run import Run
    from pandallm.train.spec import TrainSpec

Json = dict[str, Any]
#: The file of a run folder that holds the comparison.
PLAN_FILE = "plan.json"


def predict_stage(
    run: "Run", spec: "TrainSpec", packs: Path, start: Path, processes: int = 1, held_out: Path | None = None
) -> Json | None:
    """What the plan says of a stage whose packs, start and held-out windows are ready; None for a model whose sizes are not known.

    {"steps", "tokens", "trained_tokens", "flops", "seconds", "seconds_low", "seconds_high" (from the first step to the last one's
    end, with checkpoints and held-out text), "by" (how the rate is known), "peak_memory_gib" (of one process), "device"}. On a GPU
    that no table lists, seconds and `by` are None, and the run's progress says how to add it.
    """
    from pandallm.model.devices import UnknownGpu, devices
    from pandallm.pipeline.plan.base import stage_shape
    from pandallm.pipeline.plan.fit import fit_stage
    from pandallm.pipeline.plan.hours import read_rates, scored_tokens, stage_hours
    from pandallm.pipeline.plan.recipe import this_machine, training_flops
    from pandallm.pipeline.plan.tokens import tokens_of_packs

    recipe, store = run.recipe, run.store.root
    try:
        shape = stage_shape(recipe.base, start)
    except BadInput:
        return None
    tokens = tokens_of_packs(packs)
    flops = training_flops(shape, spec, tokens)
    said: list[str] = []
    known = True
    try:
        place = this_machine(recipe, devices(store=store), store, processes)
    except BadInput as e:  # a GPU that no table lists, or a table that cannot be read: no reason not to train
        known = False
        said.append(str(e) if isinstance(e, UnknownGpu) else f"No hours are predicted: {e}")
        place = _this_gpu(recipe.runtime.device, processes)
    fit = fit_stage(shape, spec, dtype=spec.dtype, tokens=tokens, sharding=recipe.runtime.sharding, place=place)
    predicted: Json = {
        "steps": tokens.steps,
        "tokens": round(tokens.tokens),
        "trained_tokens": round(tokens.trained_tokens),
        "flops": flops,
        "seconds": None,
        "seconds_low": None,
        "seconds_high": None,
        "by": None,
        "peak_memory_gib": round(fit.chosen.memory.peak / 2**30, 3),
        "device": place.label,
    }
    if known:
        hours = stage_hours(
            place,
            shape,
            spec,
            dtype=spec.dtype,
            steps=tokens.steps,
            tokens=tokens.tokens,
            flops=flops,
            rates=read_rates(store, said),
            sharding=fit.chosen.sharding,
            scored_tokens=scored_tokens(spec, tokens.steps, _watched_tokens(held_out)),
            save_every_seconds=recipe.runtime.save_every_seconds,
        )
        predicted |= {
            "seconds": round(hours.seconds, 4),
            "seconds_low": round(hours.seconds * hours.low / hours.hours, 4),
            "seconds_high": round(hours.seconds * hours.high / hours.hours, 4),
            "by": hours.by,
        }
    for sentence in said:
        run.progress.say(sentence)
    return predicted


def _watched_tokens(windows: Path | None) -> int:
    """Tokens that a folder of held-out windows scores; 0 without one."""
    return sum(int(g["tokens"]) for g in read_json(windows / "held_out.json")["groups"]) if windows else 0


def _this_gpu(device: str, processes: int) -> "Place":
    """The GPU that trains, by its name and memory alone; this machine's processor where there is none."""
    import torch

    from pandallm.model.devices import DeviceSpec
    from pandallm.model.folder import resolve_device
    from pandallm.pipeline.plan.hours import Place, this_cpu

    resolved = resolve_device(device)
    if resolved == "cpu":
        return this_cpu(None)
    facts = torch.cuda.get_device_properties(torch.device(resolved))
    # Rates are not known, and nobody asks for them.
    spec = DeviceSpec(bf16_tflops=1, fp32_tflops=1, memory_gb=facts.total_memory / 1e9, bandwidth_gb_s=1)
    return Place(facts.name, processes, spec, "gpu")


def compared(stages: Sequence[Mapping[str, Any]], folder: Path) -> list[Json]:
    """Predicted against actual of every trained stage of a manifest that has a prediction.

    folder: of the run, for `metrics/STAGE.jsonl`. Returns [{"stage", "predicted": as `predict_stage`, "actual": {"steps", "tokens",
    "trained_tokens", "seconds" (of the steps, with checkpoints and held-out text, over all starts), "peak_memory_gib" (of the
    process, data stages before it included)}, "ratio": actual by predicted of "tokens" and "seconds", "within": whether the seconds lie in the predicted interval,
    None where none were predicted or measured}].
    """
    found = []
    for stage in stages:
        predicted = stage["facts"].get("predicted") if stage["kind"] == "train" else None
        if not predicted:
            continue
        name = str(stage["name"]).removeprefix("train ")
        facts = stage["facts"]
        seconds = _seconds(folder / "metrics" / f"{name}.jsonl")
        actual = {k: facts.get(k) for k in ("steps", "tokens", "trained_tokens", "peak_memory_gib")}
        ratio = {
            "tokens": round(facts["tokens"] / predicted["tokens"], 4) if predicted["tokens"] else None,
            "seconds": round(seconds / predicted["seconds"], 4) if seconds and predicted["seconds"] else None,
        }
        known = seconds is not None and predicted["seconds"] is not None
        within = predicted["seconds_low"] <= seconds <= predicted["seconds_high"] if known else None
        found.append(
            {
                "stage": name,
                "predicted": predicted,
                "actual": {**actual, "seconds": seconds},
                "ratio": ratio,
                "within": within,
            }
        )
    return found


def _seconds(metrics: Path) -> float | None:
    """Seconds of a stage's steps by its last line; None without one."""
    if not metrics.is_file():
        return None
    lines = list(read_jsonl(metrics))
    return float(lines[-1]["seconds"]) if lines else None

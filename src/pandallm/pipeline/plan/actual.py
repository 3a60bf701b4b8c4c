"""What was predicted before a stage trained, and what it then took."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput
from pandallm.store import read_json, read_jsonl

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run
    from pandallm.train.spec import TrainSpec

Json = dict[str, Any]
#: The file of a run folder that holds the comparison.
PLAN_FILE = "plan.json"


def predict_stage(run: "Run", spec: "TrainSpec", packs: Path, start: Path, processes: int = 1) -> Json | None:
    """What the plan says of a stage whose packs and start are ready; None for a model whose sizes are not known.

    {"steps", "tokens", "trained_tokens", "flops", "seconds", "seconds_low", "seconds_high" (of the steps alone), "by" (how the
    rate is known), "peak_memory_gib" (of one process), "device"}.
    """
    from pandallm.model.devices import devices
    from pandallm.model.shape import shape_of_config
    from pandallm.pipeline.plan.fit import fit_stage
    from pandallm.pipeline.plan.hours import read_rates, stage_hours
    from pandallm.pipeline.plan.recipe import this_machine, training_flops
    from pandallm.pipeline.plan.tokens import tokens_of_packs

    try:
        shape = shape_of_config(read_json(start / "config.json"), str(start))
    except BadInput:
        return None
    tokens = tokens_of_packs(packs)
    place = this_machine(run.recipe, devices(), processes)
    dtype = spec.dtype
    flops = training_flops(shape, spec, tokens)
    fit = fit_stage(
        shape,
        spec,
        dtype=dtype,
        tokens=tokens,
        sharding=run.recipe.runtime.sharding,
        place=place,
    )
    hours = stage_hours(
        place,
        shape,
        spec,
        dtype=dtype,
        steps=tokens.steps,
        tokens=tokens.tokens,
        flops=flops,
        rates=read_rates(run.store.root),
        sharding=fit.chosen.sharding,
    )
    seconds = hours.seconds_per_step * tokens.steps
    return {
        "steps": tokens.steps,
        "tokens": round(tokens.tokens),
        "trained_tokens": round(tokens.trained_tokens),
        "flops": flops,
        "seconds": round(seconds, 2),
        "seconds_low": round(seconds * hours.low / hours.hours, 2),
        "seconds_high": round(seconds * hours.high / hours.hours, 2),
        "by": hours.by,
        "peak_memory_gib": round(fit.chosen.memory.peak / 2**30, 3),
        "device": place.label,
    }


def compared(stages: Sequence[Mapping[str, Any]], folder: Path) -> list[Json]:
    """Predicted against actual of every trained stage of a manifest that has a prediction.

    folder: of the run, for `metrics/STAGE.jsonl`. Returns [{"stage", "predicted": as `predict_stage`, "actual": {"steps", "tokens",
    "trained_tokens", "seconds" (of the steps, over all kills and resumes), "peak_memory_gib" (of the process, data stages before it
    included)}, "ratio": actual by predicted of "tokens" and "seconds", "within": whether the seconds lie in the predicted interval}].
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
        within = seconds is not None and predicted["seconds_low"] <= seconds <= predicted["seconds_high"]
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

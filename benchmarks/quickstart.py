"""The microworld on seeds that nobody tuned on: scores with intervals, controls, seconds, memory, and the second run from the store.

    python benchmarks/quickstart.py [--quick] [--seeds 101 102 103] [--json FILE]

Each seed is run by `panda run seed=S --json` in a store of its own, then once more. `--quick` is the same on one seed. The headline metric, the questions
and the controls are fixed in the recipe (src/pandallm/recipes/microworld.yaml); the seeds below 100 were used for tuning.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

MODELS = ("base", "pretrain", "instruct")
GOALS = {"seconds": 300, "peak_memory_gib": 4.0, "second_run_seconds": 30, "chance": 0.25}


def panda_run(seed: int, folder: Path) -> tuple[dict[str, Any], float]:
    """One `panda run` as a process of its own; its JSON and the wall time including start-up."""
    command = [
        sys.executable,
        "-m",
        "pandallm",
        "run",
        f"seed={seed}",
        f"runtime.store={folder}/store",
        f"runtime.runs={folder}/runs",
        "--json",
    ]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout), time.monotonic() - began


def measure(seed: int, seeds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="panda-quickstart-") as folder:
        first, seconds = panda_run(seed, Path(folder))
        second, again = panda_run(seed, Path(folder))
        scores = json.loads((Path(first["run"]) / "scores.json").read_text(encoding="utf-8"))
        stages = json.loads((Path(first["run"]) / "manifest.json").read_text(encoding="utf-8"))["stages"]
    controls = first["headline"]["controls"]
    return {
        "seed": seed,
        "command": f"panda run seed={seed} --json",
        "headline": first["headline"],
        "ordered": ordered(first["headline"]),
        "controls_hold_chance": {n: holds_chance(c, seeds * len(controls)) for n, c in controls.items()},
        "seconds": round(seconds, 1),
        "peak_memory_gib": first["peak_memory_gib"],
        "second_run_seconds": round(again, 1),
        "second_run_made": second["made"],
        "stage_seconds": {s["name"]: s["made_in_seconds"] for s in stages},
        "delta": first["delta"],
        "table": scores["table"],
    }


def ordered(headline: dict[str, Any]) -> bool:
    """base < pretrained < instructed, with intervals that do not overlap."""
    return all(headline[a]["high"] < headline[b]["low"] for a, b in pairwise(MODELS))


def holds_chance(control: dict[str, float], comparisons: int) -> bool:
    """Whether chance lies in the control's interval, widened so that all `comparisons` intervals hold together with 95 % (Bonferroni).

    Decided before the reported seeds were run: of nine 95 % intervals at exact chance, one misses it in more than a third of all tries.
    """
    factor = norm.ppf(1 - 0.025 / comparisons) / norm.ppf(0.975)
    low = control["accuracy"] - factor * (control["accuracy"] - control["low"])
    high = control["accuracy"] + factor * (control["high"] - control["accuracy"])
    return bool(low <= GOALS["chance"] <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--json")
    arguments = parser.parse_args()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    runs = []
    for seed in seeds:
        run = measure(seed, len(seeds))
        runs.append(run)
        shown = {**{m: run["headline"][m] for m in MODELS}, **run["headline"]["controls"]}
        print(f"seed {seed}: {run['seconds']} s, {run['peak_memory_gib']} GiB, again {run['second_run_seconds']} s")
        for name, s in shown.items():
            print(f"  {name:24} {100 * s['accuracy']:5.1f}  [{100 * s['low']:.1f}, {100 * s['high']:.1f}]")
    figures = {
        "runs": runs,
        "median_seconds": statistics.median(r["seconds"] for r in runs),
        "max_seconds": max(r["seconds"] for r in runs),
        "max_memory_gib": max(r["peak_memory_gib"] for r in runs),
    }
    met = all(
        r["ordered"]
        and all(r["controls_hold_chance"].values())
        and r["seconds"] <= GOALS["seconds"]
        and r["peak_memory_gib"] <= GOALS["peak_memory_gib"]
        and r["second_run_seconds"] <= GOALS["second_run_seconds"]
        and not r["second_run_made"]
        for r in runs
    )
    print("all goals met" if met else "NOT all goals met")
    write(arguments.json, result("quickstart", figures, GOALS, met, "python " + " ".join(sys.argv)))


if __name__ == "__main__":
    main()

"""What a study costs beside the stages that it has to make: six instruction arms on the microworld share one pretraining.

Runs the study in an empty store, in one process. Goals: the whole takes at most 1.05 x the seconds of the stages that were made (one
base, one pretraining, six instruction stages, the evaluations), and after the first run what is not spent in stages is below 2 %.
What is not spent in stages is told apart: within the runs (their statistics, tables and manifests) and between them (scheduling alone).
    python benchmarks/study_sharing.py [--quick] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import result, write

RATES = [2.0e-4, 5.0e-4, 1.0e-3, 2.0e-3, 3.0e-3, 5.0e-3]
QUICK = {"base.scratch.train.steps": 60, "stages.pretrain.steps": 60, "stages.instruct.steps": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    study = {
        "name": "sharing",
        "recipe": "microworld",
        "seeds": [1],
        "set": QUICK if options.quick else {},
        "factors": {"lr": {"field": "stages.instruct.optimizer.lr", "levels": RATES}},
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        began = time.monotonic()
        command = [sys.executable, "-m", "pandallm", "study", "run", "study.yaml", "--quiet", "--json"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - began
        figures = measure(Path(folder) / "runs" / "sharing" / "arms", wall)
    goals = {"whole_over_stages": 1.05, "overhead_after_first": 0.02}
    met = all(figures[name] <= goal for name, goal in goals.items())
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print("met" if met else "not met")
    write(options.json, result("study_sharing", figures, goals, met, " ".join(["python", *sys.argv])))


def measure(arms: Path, wall: float) -> dict[str, Any]:
    """Seconds of the stages that were made, of the runs, of the whole command; stages made by kind."""
    runs = []
    for rate in RATES:
        run = arms / f"lr-{rate}-seed1"
        stages = json.loads((run / "manifest.json").read_text())["stages"]
        made = [s for s in stages if not s["reused"]]
        seconds = json.loads((run / "outcome.json").read_text())["seconds"]
        ended = (run / "outcome.json").stat().st_mtime
        runs.append(
            {
                "seconds": seconds,
                "ended": ended,
                "stages": sum(s["seconds"] for s in made),
                "made": [s["name"] for s in made],
            }
        )
    stages, later = sum(r["stages"] for r in runs), runs[1:]
    taken = runs[-1]["ended"] - runs[0]["ended"]
    trained = [name for r in runs for name in r["made"] if name.startswith("train ") and name != "train tokenizer"]
    return {
        "seconds": round(wall, 1),
        "seconds_in_stages": round(stages, 1),
        "whole_over_stages": round(wall / stages, 4),
        "first_run_seconds": runs[0]["seconds"],
        "later_run_seconds": round(sum(r["seconds"] for r in later) / len(later), 2),
        "overhead_after_first": round(1 - sum(r["stages"] for r in later) / taken, 4),
        "within_runs": round(sum(r["seconds"] - r["stages"] for r in later) / taken, 4),
        "between_runs": round(1 - sum(r["seconds"] for r in later) / taken, 4),
        "before_and_after_runs_seconds": round(wall - runs[0]["seconds"] - taken, 2),
        "trainings": len(trained),
        "trainings_without_sharing": 3 * len(RATES),
    }


if __name__ == "__main__":
    main()

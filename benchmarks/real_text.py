"""A recipe on real text: bits per byte per language after each stage, benchmark scores, seconds, memory. Keeps ids, choices and scores, never text.

    PANDA_DATA=FOLDER python benchmarks/real_text.py recipes/tiny-zh.yaml [a.b.c=value ...] [--quick] [--out FOLDER]

Writes `result.json`, the run's scores, ledgers, per-question rows without completions, and a report without text to --out. `--quick` trains a tenth.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

#: Recipe -> goals. Every recipe must also give its delta back bit for bit.
GOALS: dict[str, dict[str, float]] = {"tiny-zh": {"chinese_bits_per_byte_change_after_pretraining": -0.30}}
QUICK = (
    "base.scratch.train.tokens=50000",
    "stages.pretrain.tokens=50000",
    "stages.instruct.tokens=12000",
    "evaluate.limit.likelihood=30",
)


def keep(run: Path, out: Path) -> None:
    """Copy what may be published of a run."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("scores.json", "recipe.yaml", "tasks.json", "bits_per_byte.jsonl"):
        shutil.copyfile(run / name, out / name)
    shutil.copytree(run / "ledgers", out / "ledgers", dirs_exist_ok=True)
    with open(run / "rows.jsonl", encoding="utf-8") as rows, open(out / "rows.jsonl", "w", encoding="utf-8") as kept:
        for line in rows:
            row = json.loads(line)
            row.pop("completion")
            kept.write(json.dumps(row, ensure_ascii=False) + "\n")


def change(scores: dict[str, Any], first: str, second: str, language: str) -> dict[str, float] | None:
    """Relative change of bits per byte from one model to the next."""
    for row in scores["bits_per_byte_changes"]:
        if (row["a"], row["b"], row["language"]) == (first, second, language):
            return {k: row[k] for k in ("change", "low", "high")}
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    arguments = parser.parse_intermixed_args()
    overrides = [*arguments.overrides, *(QUICK if arguments.quick else ())]
    command = ["run", arguments.recipe, *overrides, "--no-text", "--json"]
    done = subprocess.run([sys.executable, "-m", "pandallm", *command], stdout=subprocess.PIPE, check=True, text=True)
    run = Path(json.loads(done.stdout)["run"])
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    models = scores["models"]
    chinese = change(scores, models[0], models[1], "zh") if len(models) > 1 else None
    figures = {
        "seconds": manifest["work_seconds"],
        "peak_memory_gib": manifest["peak_memory_gib"],
        "stage_seconds": {s["name"]: s["made_in_seconds"] for s in manifest["stages"]},
        "bits_per_byte": [r for r in scores["bits_per_byte"] if r["source"] == "all"],
        "changes": scores["bits_per_byte_changes"],
        "headline": scores["headline"],
        "table": scores["table"],
        "delta": json.loads((run / "delta.json").read_text(encoding="utf-8")),
    }
    for row in figures["changes"]:
        print(
            f"{row['a']} -> {row['b']}, {row['language']}: {row['change']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]"
        )
    print(f"{figures['seconds']:.0f} s of work, {figures['peak_memory_gib']} GiB")
    goals = GOALS.get(run.name.rsplit("-seed", 1)[0], {})
    fall = goals.get("chinese_bits_per_byte_change_after_pretraining")
    met = figures["delta"]["verified"] and (fall is None or (chinese is not None and chinese["high"] <= fall))
    print("goal met" if met else "goal NOT met")
    if arguments.out:
        keep(run, Path(arguments.out))
        page = [
            sys.executable,
            "-m",
            "pandallm",
            "report",
            str(run),
            "--no-text",
            "--out",
            f"{arguments.out}/report.html",
        ]
        subprocess.run(page, check=True, stdout=subprocess.DEVNULL)
        shown = " ".join(["panda", *command])
        write(f"{arguments.out}/result.json", result(f"real_text {run.name}", figures, goals, met, shown))


if __name__ == "__main__":
    main()

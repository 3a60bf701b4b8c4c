"""The plans of all shipped recipes as a Markdown table, on devices that suit them and without any data: `panda plan` in one view.

python tools/plan_table.py           prints it
python tools/plan_table.py --write   puts it into docs/recipes.md, between its two marks
"""

import argparse
import os
import tempfile
from pathlib import Path

from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.show import plan_row
from pandallm.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
BEGIN, END = "<!-- plans: begin -->\n", "<!-- plans: end -->\n"
COLUMNS = ("recipe", "devices", "parameters", "steps", "tokens", "GiB a device", "hours", "USD")
#: Devices of each plan; the paper's own 16 where nothing is said.
DEVICES = {
    "panda-65b": "32xA100-80G",
    "smollm2-zh": "1xA100-80G",
    "tiny-zh": "1xRTX4090-24G",
    "microworld": "1xRTX4090-24G",
}
DEFAULT = "16xA100-80G"


def table() -> str:
    """The table and, below it, what the plans warn of. The same on every machine: no file, no cache and no rate of this one is read."""
    names = [*sorted(str(p) for p in (ROOT / "recipes").glob("*.yaml")), "microworld"]
    rows, warnings = [], []
    with tempfile.TemporaryDirectory() as empty:
        os.environ["HF_HUB_CACHE"] = empty  # a tokenizer of this machine would count otherwise
        for name in names:
            recipe = load_recipe(name, [f"runtime.store={empty}/store"])
            if not recipe.stages:
                continue
            recipe = recipe.model_copy(update={"paths": {k: f"{empty}/{k}" for k in recipe.paths}})
            plan = plan_recipe(recipe, on=(devices := DEVICES.get(recipe.name, DEFAULT)))
            row = plan_row(plan)
            rows.append([f"`{row[0]}`", devices, *row[1:]])
            for stage in plan["stages"]:
                warnings += [f"- `{recipe.name}`, {stage['name']}: {text}" for text in stage["warnings"]]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
    return text + ("\nThe plans warn:\n\n" + "\n".join(warnings) + "\n" if warnings else "")


def shown() -> str:
    """The table as docs/recipes.md has it."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/recipes.md")
    text = table()
    if not parser.parse_args().write:
        print(text, end="")
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

"""The 2023 paper's table re-analysed from its counts: tests with the passages' design effect, Holm, groups of tied models.

    python benchmarks/paper_table.py [--quick] [--json FILE] [--page FILE]

It reads nothing but the counts in src/pandallm/evaluate/published.py and takes a second; `--quick` changes nothing. `--page`
writes docs/paper-table.md. Goals: the figures that were worked out by hand before (unpaired, no passages): 7B to Instruct-9k has
p = .005 on LogiQA, .008 on C3-d and less than 1e-15 on C3-m; 6k against 9k is within noise everywhere.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

from pandallm.evaluate.paper_table import analyse, page

GOALS = {"7B to Instruct-9k, p": {"logiqa2-zh": 0.005, "c3-d": 0.008, "c3-m": "< 1e-15"}, "6k against 9k": "noise"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.add_argument("--json")
    parser.add_argument("--page", help="Markdown page to write")
    arguments = parser.parse_args()
    figures = analyse()
    text = page(figures)
    print(text)
    tuning = {
        r["task"]: r["by_correlation"][0]["p"] for r in figures["claims"] if r["says"] == "instruction tuning helps"
    }
    met = (
        round(tuning["logiqa2-zh"], 3) == 0.005
        and round(tuning["c3-d"], 3) == 0.008
        and tuning["c3-m"] < 1e-15
        and all(r["verdict"] == "noise" for r in figures["claims"] if r["says"] == "more steps help")
    )
    print("all goals met" if met else "NOT all goals met")
    write(arguments.json, result("paper_table", figures, GOALS, met, "python " + " ".join(sys.argv)))
    if arguments.page:
        Path(arguments.page).write_text(text, encoding="utf-8")
        print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()

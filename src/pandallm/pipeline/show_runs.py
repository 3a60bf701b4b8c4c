"""What `panda report` prints of several runs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pandallm.pipeline.show import interval, percent
from pandallm.pipeline.show_compare import _differences, _table


def print_runs(numbers: dict[str, Any], page: Path, console: Console | None = None) -> None:
    """Headlines, their differences, bits per byte of whole languages; everything else is on the page."""
    console = console or Console()
    runs = numbers["runs"]
    table = _table("model|headline|interval|guessing|")
    for r in runs:
        h = r["headline"]
        cells = [percent(h["accuracy"]), interval(h), percent(h["chance"])] if h else ["-", "-", "-"]
        table.add_row(escape(f"{r['name']} ({r['model']})"), *cells, "")
    console.print(table)
    if numbers["headline"] is not None:
        console.print(_differences(numbers["headline"]))
    for entry in numbers["not_compared"]:
        sentence = f"{entry['run']} is not compared question by question: {entry['why']}"
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if not numbers["same_headline"]:
        console.print("The headlines are not the same and are not compared.", highlight=False)
    bits = [line for line in numbers["bits_per_byte"] if line["corpus"] == "all"]
    if bits:
        table = _table("model|" + "|".join(f"bits/byte {escape(line['language'])}|change" for line in bits))
        for k, r in enumerate(runs):
            cells = []
            for line in bits:
                score, change = line["scores"][k], line["changes"][k]
                cells.append("-" if score is None else f"{score['bits_per_byte']:.3f}")
                cells.append("" if change is None else f"{100 * change['change']:+.1f}%")
            table.add_row(escape(r["name"]), *cells)
        console.print(table)
    console.print(f"Page: {page}", highlight=False, soft_wrap=True, markup=False)

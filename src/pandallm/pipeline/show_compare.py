"""What `panda compare` prints."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pandallm.pipeline.show import interval, percent

#: A sentence per thing that the published counts cannot be shown for; the same reasons as on the page.
WHY_NOT = {
    "task": "the paper has no score of this task",
    "n": "{n} questions were scored, the paper's test set has {published_n}",
    "split": "these questions are not known to be the whole test set",
}

#: Scores that say little of a model.
NOT_ABOVE = {"chance": "not above guessing", "constant": "not above the constant answer"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def print_comparison(comparison: dict[str, Any], page: Path, console: Console | None = None) -> None:
    """Per task: scores, then differences and, where asked for, the paper's counts. Fits 100 columns unless names are long."""
    console = console or Console()
    cells = comparison["cells"]
    console.print(
        f"Per cent and points, mean over prompts, {comparison['confidence']:.0%} intervals clustered by passage.",
        highlight=False,
    )
    methods = len({c["method"] for c in cells})
    for cell in cells:
        constant = cell["constant"]
        console.print(
            f"\n[bold]{escape(_name(cell, methods))}[/bold]: {cell['n']} questions in {cell['clusters']} passages, guessing "
            f"{percent(cell['chance'])}, always {LETTERS[constant['answer']]} {percent(constant['accuracy'])}",
            highlight=False,
        )
        console.print(_scores(cell, tied=len(comparison["models"]) > 2 and cell["groups"] is not None))
        if cell["pairs"]:
            console.print(_differences(cell))
    if comparison["family"]:
        console.print(
            f"\nVerdicts are on b. p: signs of whole passages flipped, adjusted by Holm over {comparison['family']} comparisons. "
            f"differ: questions with another choice under the same prompt. finds: the smallest difference that would be "
            f"found with a probability of {comparison['power']:.0%}.",
            highlight=False,
        )
    if comparison["published"] is not None:
        _published(comparison["published"], console)
    for sentence in comparison["left_out"]:
        console.print(f"Left out: {sentence}.", highlight=False, markup=False)
    console.print(f"Page: {page}", highlight=False, soft_wrap=True, markup=False)


def _name(cell: dict[str, Any], methods: int) -> str:
    more = [cell["group"]] if cell["group"] else []
    more += [cell["method"]] if methods > 1 else []
    more += [f"{cell['shots']} shots"] if cell["shots"] else []
    more += ["chat"] if cell["chat"] else []
    return cell["task"] + (f" ({', '.join(more)})" if more else "")


def _table(columns: str, title: str | None = None) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    for name in columns.split("|"):
        folds = name in ("", "model", "b", "against a", "verdict", "published")
        table.add_column(name, no_wrap=not folds, overflow="fold", justify="left" if folds else "right")
    return table


def _scores(cell: dict[str, Any], tied: bool) -> Table:
    generated = cell["method"] == "generation"
    table = _table("model|accuracy|interval" + ("|unparsed" if generated else "") + ("|tied" if tied else "") + "|")
    for s in sorted(cell["scores"], key=lambda s: -s["accuracy"]):
        row = [escape(s["model"]), percent(s["accuracy"]), interval(s)]
        if generated:
            row.append(percent(s["unparsed"]))
        if tied:  # models that share a letter could not be told apart
            row.append(" ".join(_letters(k) for k, g in enumerate(cell["groups"]) if s["model"] in g))
        row.append(NOT_ABOVE.get(s["not_above"], ""))
        table.add_row(*row)
    return table


def _letters(k: int) -> str:
    """a, b, .. z, aa, ab, .."""
    return (_letters(k // 26 - 1) if k >= 26 else "") + chr(ord("a") + k % 26)


def _differences(cell: dict[str, Any]) -> Table:
    table = _table("b|against a|b - a|interval|p|differ|finds|verdict")
    for p in cell["pairs"]:
        undecided = p["verdict"] == "undecided"
        table.add_row(
            escape(p["b"]),
            escape(p["a"]),
            f"{100 * p['difference']:+.1f}",
            _signed_interval(p),
            _p(p["p_holm"]),
            str(p["disagree"]),
            "-" if p["detectable"] is None else percent(p["detectable"]),
            "no difference found" if undecided else p["words"],
        )
    return table


def _published(published: list[dict[str, Any]], console: Console) -> None:
    methods = len({e["method"] for e in published})
    for entry in published:
        name = _name(entry, methods)
        if entry["why_not"] is not None:
            console.print(
                f"Published: {name} is not shown: {WHY_NOT[entry['why_not']].format(**entry)}.",
                highlight=False,
                markup=False,
            )
            continue
        table = _table(
            "model|accuracy|published|accuracy |difference|interval|p",
            escape(f"\n{name}: ours (prompt {entry['prompt']}, {entry['method']}) - published, points, unpaired"),
        )
        accuracies = {e["model"]: e["accuracy"] for e in entry["published"]}
        last = None
        for d in sorted(entry["differences"], key=lambda d: d["model"]):
            table.add_row(
                escape(d["model"]) if d["model"] != last else "",
                percent(d["right"] / entry["n"]) if d["model"] != last else "",
                escape(d["published"]),
                percent(accuracies[d["published"]]),
                f"{100 * d['difference']:+.1f}",
                _signed_interval(d),
                _p(d["p"]),
            )
            last = d["model"]
        console.print(table)


def _signed_interval(row: dict[str, Any]) -> str:
    return "none" if row["low"] is None else f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"

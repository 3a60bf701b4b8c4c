"""What a finished run or evaluation prints."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pandallm.pipeline.show_sections import print_sections
from pandallm.report.text import asked_how
from pandallm.store import read_json

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run


def summary(run: "Run") -> dict[str, Any]:
    """The JSON object with which `panda run --json` ends."""
    manifest = read_json(run.folder / "manifest.json")
    scores = read_json(run.folder / "scores.json") if run.recipe.evaluate else {}
    delta = read_json(run.folder / "delta.json") if run.recipe.release else None
    return {
        "name": run.recipe.name,
        "seed": run.recipe.seed,
        "run": str(run.folder),
        "report": str(run.folder / "report.html") if run.recipe.evaluate else None,
        "seconds": manifest["seconds"],
        "peak_memory_gib": manifest["peak_memory_gib"],
        "reused": [s["name"] for s in manifest["stages"] if s["reused"]],
        "made": [s["name"] for s in manifest["stages"] if not s["reused"]],
        "headline": scores.get("headline"),
        "bits_per_byte": scores.get("bits_per_byte", []),
        "bits_per_byte_changes": scores.get("bits_per_byte_changes", []),
        "delta": delta,
    }


def print_summary(result: dict[str, Any]) -> None:
    """The end of `panda run` for people."""
    console = Console()
    scores = read_json_or_none(result)
    if headline := result["headline"]:
        table = Table(
            title="Headline accuracy (95 % intervals, clustered)" if scores is None else headline_title(scores)
        )
        for column in ("model", "accuracy", "interval", "n", "clusters"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for name, value in [
            *((k, v) for k, v in headline.items() if k != "controls"),
            *headline.get("controls", {}).items(),
        ]:
            label = f"control: {name}" if name in headline.get("controls", {}) else name
            table.add_row(
                label,
                percent(value["accuracy"]),
                interval(value),
                str(value.get("n", "")),
                str(value.get("clusters", "")),
            )
        console.print(table)
    elif scores:
        print_scores(scores)
    if bits := result["bits_per_byte"]:
        table = Table(title="Bits per byte of held-out text")
        for column in ("model", "language", "source", "bits per byte", "interval", "documents"):
            table.add_column(column)
        for row in bits:
            if row["source"] in (None, "all"):
                table.add_row(
                    row["model"],
                    row["language"],
                    row["source"] or "all",
                    f"{row['bits_per_byte']:.3f}",
                    between(row, ".3f"),
                    str(row["documents"]),
                )
        console.print(table)
    if delta := result["delta"]:
        verified = "applied back and verified bit for bit" if delta.get("verified") else "NOT verified"
        console.print(f"Delta: {delta['bytes'] / 1e6:.1f} MB, {delta['ratio']:.0%} of the model; {verified}.")
    if result["reused"]:
        kept = ", ".join(result["reused"]) if len(result["reused"]) <= 8 else f"{len(result['reused'])} stages"
        console.print(f"Reused from the store: {kept}.", highlight=False)
    memory = f", peak memory {result['peak_memory_gib']} GiB" if result["peak_memory_gib"] else ""
    console.print(f"{result['seconds']:.0f} s{memory}.", highlight=False)
    if result["report"]:
        console.print(f"Report: {result['report']}", highlight=False, soft_wrap=True)


def read_json_or_none(result: dict[str, Any]) -> Any:
    from pathlib import Path

    path = Path(result["run"]) / "scores.json"
    return read_json(path) if path.is_file() else None


def headline_title(scores: dict[str, Any]) -> str:
    select = scores.get("headline_definition") or {}
    what = ", ".join(select.get("tasks", []))
    return f"Headline: accuracy on {what} ({scores['confidence']:.0%} intervals, clustered)"


def print_scores(scores: dict[str, Any]) -> None:
    """The score table of an evaluation; columns that would say the same in every row are left out, so that it fits a terminal."""
    # Rotated options have a table of their own, below; subjects of a benchmark that is scored as a whole are in scores.json.
    whole = {r["task"] for r in scores["table"] if not r.get("group")}
    rows = [r for r in scores["table"] if not r.get("order") and (not r.get("group") or r["task"] not in whole)]
    alone = len({(r["task"], r.get("group")) for r in rows}) == 1
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        *([] if alone else [("task", task_and_group)]),
        ("prompt", asked_how),
        ("accuracy", lambda r: percent(r["accuracy"])),
        ("interval", interval),
        ("n", lambda r: str(r["n"])),
        ("chance", lambda r: percent(r["chance"])),
        ("const", lambda r: percent(r["constant"])),  # the best constant answer
        ("~chance", lambda r: "yes" if r["low"] is not None and r["low"] <= r["chance"] <= r["high"] else ""),
    ]
    if len({r["method"] for r in rows}) > 1:
        columns.insert(1 if alone else 2, ("by", lambda r: {"likelihood": "lik", "generation": "gen"}[r["method"]]))
    # Log-likelihoods always choose, except on servers that do not give every letter's.
    if any(r["method"] == "generation" or r["unparsed"] for r in rows):
        columns.insert(
            -1,
            ("unparsed", lambda r: percent(r["unparsed"]) if r["method"] == "generation" or r["unparsed"] else ""),
        )
        if any(r.get("accuracy_2023") is not None for r in rows):
            columns.insert(
                -1, ("2023", lambda r: "" if r.get("accuracy_2023") is None else percent(r["accuracy_2023"]))
            )
    if len({r["model"] for r in rows}) > 1:
        columns.insert(0, ("model", lambda r: r["model"]))
    models = "" if columns[0][0] == "model" or not rows else rows[0]["model"]
    about = models + (f" on {task_and_group(rows[0])}" if alone else "")
    table = Table(
        title=f"{about.strip()}{': ' if about else ''}accuracy, per cent ({scores['confidence']:.0%} intervals, clustered)",
        box=None,
        padding=(0, 1, 0, 0),
        title_justify="left",
    )
    for name, _ in columns:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(text(row) for _, text in columns))
    console = Console()
    console.print(table)
    print_sections(scores, console)
    print("const: always the most frequent answer; ~chance: the interval holds the score of guessing.")


def task_and_group(row: dict[str, Any]) -> str:
    return f"{row['task']} ({row['group']})" if row.get("group") else str(row["task"])


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def interval(row: dict[str, Any]) -> str:
    return between(row, ".1f", 100)


def between(row: dict[str, Any], form: str, scale: float = 1.0) -> str:
    """The interval; a single cluster or document has none."""
    low, high = row["low"], row["high"]
    return "none" if low is None or high is None else f"{scale * low:{form}} - {scale * high:{form}}"

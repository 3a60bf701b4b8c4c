"""Studies on a terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pandallm.report.study_text import claim_sentences, failures, progress_line

Json = dict[str, Any]
MAX_ROWS = 40


def print_plan(plan: Json) -> None:
    """The plan as text."""
    console = Console()
    factors = list(plan["arms"][0]["levels"])
    console.print(
        f"{plan['name']}: {len(plan['arms'])} arms x {len(plan['seeds'])} seeds = {plan['runs']} runs of {plan['recipe']}",
        highlight=False,
        markup=False,
    )
    table = _table("arm", *factors)
    for arm in plan["arms"][:MAX_ROWS]:
        table.add_row(escape(arm["name"]), *(escape(arm["levels"][f]) for f in factors))
    console.print(table)
    if len(plan["arms"]) > MAX_ROWS:
        console.print(f"... and {len(plan['arms']) - MAX_ROWS} more", highlight=False)
    table = _table("stages", "in all runs", "made once each")
    for stage in plan["stages"]:
        table.add_row(stage["kind"], f"{stage['total']:,}", f"{stage['made']:,}")
    console.print(table)
    training = plan["training"]
    if training["tokens_without_sharing"]:
        share = training["tokens"] / training["tokens_without_sharing"]
        console.print(
            f"Training: {training['tokens']:,} tokens, {share:.0%} of what the runs would take without sharing"
            + (
                f"; besides {', '.join(training['unknown'])}, whose length depends on the data"
                if training["unknown"]
                else ""
            )
            + ".",
            highlight=False,
            markup=False,
        )
    if costs := plan["costs"]:
        console.print(_costs(costs), highlight=False, markup=False)
    for d in plan["detectable"]:
        primary = " (primary)" if d["metric"] == plan["primary"] else ""
        if d["detectable"] is None:
            console.print(
                f"{d['metric']}{primary}: smallest effect unknown: {d['why']}.".replace("..", "."),
                highlight=False,
                markup=False,
            )
        else:
            console.print(
                f"{d['metric']}{primary}: {d['questions']} questions in {d['clusters']} clusters a seed; the smallest difference that would be found is "
                f"{100 * d['detectable']:.1f} points ({d['power']:.0%} power, {d['comparisons']} comparisons, if {d['discordance']:.0%} of the "
                f"answers differ, correlation {d['icc']:g} within a cluster, and seeds differ by their questions alone).",
                highlight=False,
                markup=False,
            )
    states = ", ".join(f"{n} {state}" for state, n in plan["states"].items())
    console.print(f"Runs: {states}.", highlight=False, markup=False)


def _costs(costs: Json) -> str:
    """Training hours and price in a sentence."""
    if costs["why"]:
        return f"Hours are not known: {costs['why']}"
    price = "" if costs["usd"] is None else f", ${costs['usd']:,.2f}"
    fits = "" if costs["fits"] else " Some stage does not fit into memory: see `panda plan`."
    return (
        f"Hours of training on {costs['place']}: {costs['hours']:.3g} ({costs['low']:.2g} to {costs['high']:.2g}){price}; "
        f"{costs['hours_without_sharing']:.3g} without sharing.{fits}"
    )


def print_results(results: Json, written: list[Path]) -> None:
    """The claims with their verdicts, failures, and where the rest stands."""
    console = Console()
    console.print(progress_line(results), highlight=False, markup=False)
    for sentence in failures(results):
        console.print(f"Failed: {sentence}", highlight=False, markup=False)
    for claim in claim_sentences(results):
        console.print(claim, highlight=False, markup=False)
    for note in results["notes"]:
        console.print(note, highlight=False, markup=False)
    for path in written:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table

"""What an evaluation prints below its table: prompts, normalisation, chat template, examples, order, letters, warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def print_sections(scores: Mapping[str, Any], console: Console) -> None:
    """Only what this evaluation has; scores written by earlier versions lack some parts."""
    _table(
        console,
        "Over prompts: mean, interval (prompts and questions), sampling error, spread of the prompts",
        ["prompts", "mean", "interval", "error", "spread", "min - max"],
        [
            (
                _where(r),
                [
                    str(r["prompts"]),
                    _percent(r["accuracy"]),
                    _between(r),
                    _percent(r["se_sampling"]),
                    _percent(r["spread"]),
                    f"{_percent(r['min'])} - {_percent(r['max'])}",
                ],
            )
            for r in scores.get("prompts", [])
        ],
    )
    ways = ("sum", "characters", "bytes", "unconditional")
    compared = [r for r in scores.get("normalizations", []) if len({r[w] for w in ways if r[w] is not None}) > 1]
    _table(
        console,
        "Option texts by summed log-probability, per character, per byte, less the unconditional",
        ["sum", "chars", "bytes", "uncond"],
        [(_where(r), [_percent(r[w]) for w in ways]) for r in compared],
    )
    for name, title in (("chat_effect", "Chat template, on less off"), ("shots_effect", "Examples, more less fewer")):
        _table(
            console,
            f"{title} (points)",
            ["difference", "interval", "p"],
            [
                (
                    _where(r) + (f", {r['from']} to {r['to']} shots" if "to" in r else ""),
                    [_percent(r["difference"]), _between(r), "none" if r["p"] is None else f"{r['p']:.3f}"],
                )
                for r in scores.get(name, [])
            ],
        )
    _table(
        console,
        "Rotated options: mean over orders; same choice in every order; chosen at A, B, ..",
        ["orders", "accuracy", "interval", "consistent", "chosen"],
        [
            (
                _where(r),
                [
                    str(r["orders"]),
                    _percent(r["accuracy"]),
                    _between(r),
                    _percent(r["consistent"]),
                    _shares(r["by_position"]),
                ],
            )
            for r in scores.get("orders", [])
        ],
    )
    _table(
        console,
        "Letters: how often chosen, how often right (A, B, ..)",
        ["chosen", "right"],
        [(_where(r), [_shares(r["chosen"]), _shares(r["answers"])]) for r in scores.get("letters", [])],
    )
    _table(
        console,
        "Letter generated against letter by log-probability: the same; the same where an answer was read",
        ["same", "interval", "of parsed", "unparsed"],
        [
            (
                _where(r),
                [_percent(r["agreement"]), _between(r), _percent(r["parsed_agreement"]), _percent(r["unparsed"])],
            )
            for r in scores.get("audit", [])
        ],
    )
    whole = {r["task"] for r in scores["table"] if not r["group"]}
    table = [r for r in scores["table"] if not r["group"] or r["task"] not in whole]  # subjects are counted once
    if tasks := scores.get("tasks"):
        told = [f"{t['task']} {t['split']}".strip() + f" (version {t['version']}, {t['hash'][:8]})" for t in tasks]
        console.print(f"\nTasks: {', '.join(told)}.", highlight=False, markup=False)
    if near := sum(r.get("near_ties", 0) for r in table):
        console.print(f"{near} near ties: the two best options differ by less than 0.001 nats.", highlight=False)
    if cut := sum(r.get("truncated", 0) for r in table):
        console.print(f"{cut} prompts were longer than the model: the middle of the passage was cut.", highlight=False)


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    if not rows:
        return
    console.print(f"\n{title}", style="italic", highlight=False, markup=False)
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right")
    for name, cells in rows:
        table.add_row(name, *cells)
    console.print(table)


def _where(r: Row) -> str:
    parts = [str(r["task"]) + (f" ({r['group']})" if r.get("group") else "")]
    parts += [str(r["prompt"])] if "prompt" in r else []
    parts += ["gen"] if r.get("method") == "generation" else []
    parts += [f"{r['shots']}-shot"] if r.get("shots") else []
    parts += ["chat"] if r.get("chat") else []
    return " ".join(parts)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f}"


def _between(r: Row) -> str:
    return "none" if r["low"] is None or r["high"] is None else f"{100 * r['low']:.1f} - {100 * r['high']:.1f}"


def _shares(values: Sequence[float | None]) -> str:
    return " ".join("none" if v is None else f"{100 * v:.0f}" for v in values)

"""The plan as text, and as a line of a table."""

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

#: How tokens are known, in words.
_KNOWN = {
    "packs": "counted in the packs",
    "all files": "counted in the files",
    "sample": "from a sample of the files",
    "text": "from the files' bytes, no tokenizer being here",
    "expected": "from the recipe's expected figures",
    "budget": "from the budget alone",
}
_BY = {
    "probe": "measured here",
    "same model": "by a rate of the same model",
    "this device": "by a rate of this device",
    "guess": "guessed from peak rates",
    "guess on a CPU": "guessed from this processor",
}


def plan_lines(plan: Json) -> list[str]:
    """The plan as lines of text."""
    place, model, total = plan["place"], plan["model"], plan["total"]
    lines = [
        f"{plan['recipe']} on {place['label']}: {model['base']}, {number(model['parameters'])} parameters",
        *plan["notes"],
        "",
    ]
    for stage in plan["stages"]:
        lines += _stage_lines(stage, place)
    lines += _data_lines(plan["data"])
    unknown = unknown_sizes(plan["data"])
    more = f" and what {' and '.join(unknown)} takes" if unknown else ""
    if not plan["stages"]:
        lines.append(
            f"The recipe trains nothing; `panda data build` makes its corpora: disk {size(total['disk_bytes'])}{more}."
        )
        return lines
    if not any(not s["cached"] for s in plan["stages"]):
        lines.append("Every training stage is in the store.")
        return lines
    price = f", {money(total['usd'])}" if total["usd"] else ""
    lines.append(
        f"To train: {hours(total)}{price}; disk {size(total['disk_bytes'])}{more}. Evaluation and data are not in these hours."
    )
    return lines


def unknown_sizes(data: Iterable[Json]) -> list[str]:
    """Names of corpora that will be cleaned and of which nothing says how large they are."""
    return [r["name"] for r in data if r["kind"] == "clean" and not r["cached"] and r["expected_bytes"] is None]


def _stage_lines(stage: Json, place: Json) -> list[str]:
    t = stage["tokens"]
    error = f" ± {t['error']:.0%}" if t["error"] else ""
    trained = (
        "" if stage["method"] == "full" else f", {stage['method']} ({number(stage['trained_parameters'])} trained)"
    )
    lines = [
        f"{stage['name']}{' (in the store)' if stage['cached'] else ''}: {stage['steps']:,} steps, "
        f"{number(t['tokens'])} tokens{error} ({_KNOWN[t['from']]}; {t['passes']:.2f} passes), "
        f"{stage['flops']:.2g} FLOP in {stage['dtype']}{trained}",
        f"  time    {hours(stage['hours'])}, {stage['hours']['seconds_per_step']:.3g} s a step ({_BY[stage['hours']['by']]})"
        + (f", MFU {stage['mfu']:.0%}" if place["kind"] == "gpu" else "")
        + (f", {money(stage['usd'])}" if stage["usd"] else ""),
        *_memory_lines(stage),
    ]
    said = [*(f"  warning {w}" for w in stage["warnings"]), *(f"  hint    {h}" for h in stage["hints"])]
    return [*lines, *said, ""]


def _memory_lines(stage: Json) -> list[str]:
    """A line for each way that weights lie: GiB of one device without, with selective and with full gradient checkpointing."""
    by_sharding: dict[str, list[Json]] = {}
    for choice in stage["choices"]:
        by_sharding.setdefault(choice["sharding"], []).append(choice)
    lines = []
    for sharding, choices in by_sharding.items():
        told = ", ".join(
            _choice(c, stage, several=len(by_sharding) > 1) for c in sorted(choices, key=lambda c: -c["peak_gib"])
        )
        lines.append(f"  memory  {sharding}: {told}")
    return lines


def _choice(choice: Json, stage: Json, several: bool) -> str:
    checkpointing = choice["gradient_checkpointing"]
    words = {False: "no checkpointing", True: "checkpointing"}.get(checkpointing, f"{checkpointing} checkpointing")
    own = choice["sharding"] == stage["sharding"] and checkpointing == stage["gradient_checkpointing"]
    verdict = "fits" if choice["fits"] else "too much"
    mark = " (sharding auto takes it)" if stage["sharding_is_auto"] and several else " (the recipe)"
    return f"{words} {choice['peak_gib']:,.1f} GiB {verdict}{mark if own else ''}"


def _data_lines(data: Iterable[Json]) -> list[str]:
    lines = []
    rows = list(data)
    unknown = unknown_sizes(rows)
    scores = [row for row in rows if row["kind"] == "evaluate"]
    for row in rows:
        if row["kind"] == "evaluate":
            continue
        if row["cached"]:
            lines.append(f"  cached    {row['name']} ({size(row['bytes'])}, made in {row['seconds']:,.0f} s)")
        else:
            expected = f" (about {size(row['expected_bytes'])})" if row["expected_bytes"] else ""
            expected = " (size not known)" if row["name"] in unknown else expected
            lines.append(f"  will run  {row['name']}{expected}")
    if scores:
        there = sum(row["cached"] for row in scores)
        verb = "cached  " if there == len(scores) else "will run"
        lines.append(f"  {verb}  evaluation of models on tasks ({there} of {len(scores)} in the store)")
    return [*lines, ""]


def plan_row(plan: Json) -> list[str]:
    """The plan in a few words for a table of many: recipe, parameters, steps, tokens, GiB per device, hours, price."""
    stages, total = plan["stages"], plan["total"]
    usd = total["usd"]
    return [
        plan["recipe"],
        number(plan["model"]["parameters"]),
        " + ".join(f"{s['steps']:,}" for s in stages),
        " + ".join(number(s["tokens"]["tokens"]) for s in stages),
        " + ".join(f"{s['memory_gib']['peak']:,.0f}" for s in stages) + ("" if total["fits"] else " (too much)"),
        span(total),
        f"{usd['low']:,.0f} to {usd['high']:,.0f}" if usd else "",
    ]


def number(value: float) -> str:
    """1234567 -> 1.2 M."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes in kB, MB, GB, TB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= factor:
            return f"{value / factor:,.3g} {unit}"
    return f"{value / 1e3:,.3g} kB"


def hours(value: Json) -> str:
    """`3.1 hours (2.4 to 4.1)`, in minutes or seconds where it is short."""
    scale, unit = (
        (1.0, "hours") if value["hours"] >= 1 else (60.0, "minutes") if value["hours"] >= 0.03 else (3600.0, "s")
    )
    a, b, c = (scale * value[k] for k in ("hours", "low", "high"))
    return f"{_round(a)} {unit} ({_round(b)} to {_round(c)})"


def span(value: Json) -> str:
    """The interval alone, in hours."""
    return f"{_round(value['low'])} to {_round(value['high'])}"


def money(value: Json) -> str:
    return f"USD {value['usd']:,.0f} ({value['low']:,.0f} to {value['high']:,.0f})"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"

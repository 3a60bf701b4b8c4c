"""Charts of a study: forest plot and dose-response, every seed visible; drawn to static SVG as the others are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from pandallm.report.charts import FAINT, PALETTE, _clean, _dots, _interval_x, _rows_height, _rules, _svg
from pandallm.report.study_words import text

Json = Mapping[str, Any]
#: More colours cannot be told apart.
MAX_COLOURS = 7


def forest_chart(rows: Sequence[Json], relative: bool, language: str) -> str:
    """Effect and interval of each row (`label`, `effect`, `low`, `high`, `by_seed`), a small ring per seed; empty without effects."""
    points = [
        {
            "row": _clean(row["label"]),
            "value": 100 * row["effect"],
            "low": None if row["low"] is None else 100 * row["low"],
            "high": None if row["high"] is None else 100 * row["high"],
        }
        for row in rows
        if row["effect"] is not None
    ]
    if not points:
        return ""
    seeds = [
        {"row": _clean(row["label"]), "value": 100 * d}
        for row in rows
        for d in row["by_seed"].values()
        if row["effect"] is not None and d is not None
    ]
    names = [p["row"] for p in points]
    y = alt.Y("row:N", title=None, scale=alt.Scale(domain=names))
    x = alt.X(
        "value:Q", title=text("axis_percent" if relative else "axis_points", language), scale=alt.Scale(zero=True)
    )
    base = alt.Chart(alt.Data(values=points))
    layers = [
        *_rules([0.0], [1, 0]),
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(size=2.5, color=PALETTE[1])
        .encode(x=_interval_x("low", x), x2="high:Q", y=y),
        alt.Chart(alt.Data(values=seeds))
        .mark_point(size=26, filled=False, opacity=0.9, color=FAINT, strokeWidth=1.2, yOffset=9)
        .encode(x=x, y=y),
        base.mark_point(size=90, filled=True, opacity=1, color=PALETTE[1]).encode(x=x, y=y),
    ]
    return _svg(alt.layer(*layers), height=40 * len(points), labels=names)


def prompts_chart(rows: Sequence[Json], names: Mapping[str, str], language: str) -> str:
    """Accuracy by prompt: a line per arm (`arm`, `prompts`: name -> `mean`, `low`, `high`; called by `names`), a colour per prompt."""
    points = [
        {
            "row": _clean(names[row["arm"]]),
            "name": _clean(prompt),
            "value": 100 * v["mean"],
            # With two or three seeds an interval may pass what an accuracy can be.
            "low": None if v["low"] is None else 100 * max(0.0, v["low"]),
            "high": None if v["high"] is None else 100 * min(1.0, v["high"]),
        }
        for row in rows
        for prompt, v in row["prompts"].items()
    ]
    if not points:
        return ""
    arms, prompts = (list(dict.fromkeys(p[key] for p in points)) for key in ("row", "name"))
    x = alt.X("value:Q", title=text("axis_accuracy", language), scale=alt.Scale(domain=[0, 100]))
    layers = _dots(points, "row", arms, "name", prompts, x)
    return _svg(alt.layer(*layers), height=_rows_height(points, arms), labels=arms)


def dose_chart(rows: Sequence[Json], kind: str, language: str) -> str:
    """A metric over a factor's levels (`level`, `mean`, `low`, `high`, `by_seed`): a ring per seed, the mean with its interval."""
    rows = [row for row in rows if row["mean"] is not None]
    if len(rows) < 2:
        return ""
    unit = 100 if kind == "accuracy" else 1
    numbers = [_number(row["level"]) for row in rows]
    numeric = None not in numbers
    levels = [_clean(row["level"]) for row in rows]
    where: list[Any] = numbers if numeric else levels
    points = [
        {
            "x": at,
            "value": unit * row["mean"],
            # With two or three seeds an interval may pass what an accuracy can be.
            "low": None if row["low"] is None else unit * max(0.0, row["low"]),
            "high": None if row["high"] is None else min(100.0 if kind == "accuracy" else math.inf, unit * row["high"]),
        }
        for at, row in zip(where, rows)
    ]
    seeds = [
        {"x": at, "value": unit * v, "seed": seed}
        for at, row in zip(where, rows)
        for seed, v in row["by_seed"].items()
        if v is not None
    ]
    if numeric:
        known = [n for n in numbers if n is not None]
        wide = min(known) > 0 and max(known) >= 16 * min(known)
        scale = alt.Scale(type="log" if wide else "linear", zero=False, nice=False, padding=14)
        # With fewer ticks asked for than values are given, vega would leave some out.
        axis = alt.Axis(values=known, tickCount=len(known), format=".9~g", labelOverlap="greedy", grid=False)
        x = alt.X("x:Q", title=None, scale=scale, axis=axis)
    else:
        # Long names in several lines, so that neighbours do not run into each other.
        axis = alt.Axis(labelAngle=0, labelExpr="length(datum.label) > 8 ? split(datum.label, /[- ]/) : datum.label")
        x = alt.X("x:O", title=None, scale=alt.Scale(domain=levels), axis=axis)
    title = text("axis_accuracy" if kind == "accuracy" else "axis_bits", language)
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    low = alt.Y("low:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=points))
    rings = alt.Chart(alt.Data(values=seeds))
    layers = [
        # A line per seed: its arms share their base, so they move together.
        rings.mark_line(color=FAINT, size=0.8, opacity=0.55).encode(x=x, y=y, detail="seed:N"),
        rings.mark_point(size=30, filled=False, color=FAINT, opacity=0.9, strokeWidth=1.2).encode(x=x, y=y),
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(size=2.5, color=PALETTE[1])
        .encode(x=x, y=low, y2="high:Q"),
        # Between levels that are no numbers there is nothing to read off.
        *([base.mark_line(color=PALETTE[1], size=2).encode(x=x, y=y)] if numeric else []),
        base.mark_point(size=80, filled=True, opacity=1, color=PALETTE[1]).encode(x=x, y=y),
    ]
    return _svg(alt.layer(*layers), height=230)


def frontier_chart(arms: Sequence[Json], language: str) -> str:
    """Bits per byte in English (across) and Chinese (up) of each arm; a colour per arm, a ring per seed; empty with fewer than two arms."""
    arms = [arm for arm in arms if arm["zh"]["mean"] is not None and arm["en"]["mean"] is not None]
    if not 2 <= len(arms) <= MAX_COLOURS:
        return ""
    points = [{"name": _clean(a["arm"]), "x": a["en"]["mean"], "y": a["zh"]["mean"]} for a in arms]
    seeds = [
        {"name": _clean(a["arm"]), "x": a["en"]["by_seed"][seed], "y": value}
        for a in arms
        for seed, value in a["zh"]["by_seed"].items()
        if a["en"]["by_seed"].get(seed) is not None
    ]
    names = [p["name"] for p in points]
    colours = [PALETTE[1:][i % (len(PALETTE) - 1)] for i in range(len(names))]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=190, symbolStrokeWidth=2.5, symbolOpacity=1)
    colour = alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    x = alt.X("x:Q", title=text("axis_bits_en", language), scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title=text("axis_bits_zh", language), scale=alt.Scale(zero=False))
    layers = [
        alt.Chart(alt.Data(values=seeds))
        .mark_point(size=30, filled=False, strokeWidth=1.2)
        .encode(x=x, y=y, color=colour),
        alt.Chart(alt.Data(values=points)).mark_point(size=100, filled=True, opacity=1).encode(x=x, y=y, color=colour),
    ]
    return _svg(alt.layer(*layers), height=280)


def power_chart(power: Json, kind: str, language: str) -> str:
    """Smallest difference that a number of seeds finds: a line per comparison, a dot where the study stands, dashed the margin."""
    curves = power["curves"][:MAX_COLOURS]
    points = [
        {"name": _clean(c["name"]), "x": n, "y": 100 * d, "stands": n == c["seeds"]}
        for c in curves
        for n, d in zip(power["seeds"], c["detectable"])
        if d is not None and d > 0
    ]
    if not points:
        return ""
    names = list(dict.fromkeys(p["name"] for p in points))
    shown = [p["y"] for p in points] + [100 * power["margin"]]
    ticks = [
        t * 10.0**e for e in range(-3, 5) for t in (1, 2, 5) if 0.8 * min(shown) <= t * 10.0**e <= 1.25 * max(shown)
    ]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=190, symbolStrokeWidth=2.5, symbolOpacity=1)
    colours = [PALETTE[1:][i % (len(PALETTE) - 1)] for i in range(len(names))]
    colour = alt.Color(
        "name:N", scale=alt.Scale(domain=names, range=colours), legend=legend if len(names) > 1 else None
    )
    x = alt.X(
        "x:Q",
        title=text("axis_seeds", language),
        scale=alt.Scale(domain=[2, 20]),
        axis=alt.Axis(values=[2, 5, 10, 15, 20], labelOverlap="greedy"),
    )
    title = text("axis_finds_points" if kind == "accuracy" else "axis_finds_percent", language)
    # Two seeds find some hundred times what twenty do: only logarithms show both.
    y = alt.Y(
        "y:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[0.8 * min(shown), 1.25 * max(shown)], nice=False),
        axis=alt.Axis(values=ticks, tickCount=len(ticks), format=".9~g", labelOverlap="greedy"),
    )
    base = alt.Chart(alt.Data(values=points))
    margin = alt.Chart(alt.Data(values=[{"y": 100 * power["margin"]}]))
    layers = [
        margin.mark_rule(color=FAINT, strokeDash=[6, 4], size=1.2).encode(y=y),
        base.mark_line(size=2).encode(x=x, y=y, color=colour),
        base.transform_filter("datum.stands")
        .mark_point(size=90, filled=True, opacity=1)
        .encode(x=x, y=y, color=colour),
    ]
    return _svg(alt.layer(*layers), height=240)


def _number(level: str) -> float | None:
    try:
        return float(level)
    except ValueError:
        return None

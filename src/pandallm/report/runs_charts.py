"""Curves and changes of several runs in one picture, drawn to static SVG as the other charts are."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from pandallm.report.charts import (
    LINE_POINTS,
    PALETTE,
    Points,
    _clean,
    _interval_x,
    _rows_height,
    _rules,
    _svg,
    trained_tokens,
)
from pandallm.report.text import language_name, text

Json = Mapping[str, Any]
#: A run's name, its lines, and step -> trained tokens (empty where its lines do not tell them).
Curve = tuple[str, Sequence[Json], Mapping[int, int]]
#: Colours of the runs, in their order; from here on lines are dashed.
COLOURS = PALETTE[1:]
#: Lines beyond this many cannot be told apart.
MAX_LINES = 2 * len(COLOURS)


def over_tokens(curves: Sequence[Curve]) -> bool:
    """Whether trained tokens are the axis: every run's lines tell them for every point."""
    return all(tokens and all(line["step"] in tokens for line in lines) for _, lines, tokens in curves)


def curves_of(lines: Mapping[str, Sequence[Json]], stage_lines: Mapping[str, Sequence[Json]]) -> list[Curve]:
    """Run -> its lines, and run -> the lines of the same stage's training, which tell the tokens: what `overlay_chart` draws."""
    return [(name, found, trained_tokens(stage_lines.get(name, ()))) for name, found in lines.items() if found]


def overlay_chart(curves: Sequence[Curve], key: str, axis: str, language: str) -> str:
    """Field `key` of the lines of several runs over trained tokens (over steps where a run does not tell them); a colour per run.

    Every k-th line is drawn where there are many. Empty where nothing is to be drawn, or where no two runs have lines.
    """
    curves = curves[:MAX_LINES]
    if len(curves) < 2:
        return ""
    tokens_known = over_tokens(curves)
    points: Points = []
    for name, lines, tokens in curves:
        points += [
            {
                "x": tokens[line["step"]] if tokens_known else line["step"],
                "y": line[key],
                "name": _clean(name),
            }
            for line in lines[:: thinned(lines, len(curves))]
            if line.get(key) is not None
        ]
    names = list(dict.fromkeys(p["name"] for p in points))
    if not names:
        return ""
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    dashes = [[1, 0] if i < len(COLOURS) else [4, 2] for i in range(len(names))]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=190, symbolStrokeWidth=2.5, symbolOpacity=1)
    title = text("axis_trained" if tokens_known else "axis_step", language)
    axis_x = alt.Axis(grid=False, tickCount=5, format="~s" if tokens_known else "d")
    x = alt.X("x:Q", title=title, axis=axis_x)
    y = alt.Y("y:Q", title=text(axis, language), scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5))
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=1.4, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            strokeDash=alt.StrokeDash("name:N", scale=alt.Scale(domain=names, range=dashes), legend=legend),
        )
    )
    return _svg(chart, height=240)


def changes_chart(changes: Sequence[Json], names: Sequence[str], language: str) -> str:
    """Change of bits per byte against the first run (`run`, `language`, `change`, `low`, `high`): a line per language, a colour per run.

    `names`: all runs, so that a run has its colour of the curves. Empty without changes.
    """
    points = [
        {
            "row": _clean(language_name(str(c["language"]), language)),
            "name": _clean(c["run"]),
            "value": 100 * c["change"],
            "low": None if c["low"] is None else 100 * c["low"],
            "high": None if c["high"] is None else 100 * c["high"],
        }
        for c in changes
    ]
    if not points:
        return ""
    rows = list(dict.fromkeys(p["row"] for p in points))
    shown = [_clean(n) for n in names if any(c["run"] == n for c in changes)]
    colours = [COLOURS[i % len(COLOURS)] for i, n in enumerate(names) if any(c["run"] == n for c in changes)]
    x = alt.X("value:Q", title=text("axis_change", language), scale=alt.Scale(zero=True))
    y = alt.Y("row:N", title=None, scale=alt.Scale(domain=rows, paddingInner=0.25, paddingOuter=0.12))
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=190, symbolOpacity=1)
    base = alt.Chart(alt.Data(values=points)).encode(
        y=y,
        yOffset=alt.YOffset("name:N", scale=alt.Scale(domain=shown)),
        color=alt.Color("name:N", scale=alt.Scale(domain=shown, range=colours), legend=legend),
    )
    layers = [
        *_rules([0.0], [1, 0]),
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(size=2)
        .encode(x=_interval_x("low", x), x2="high:Q"),
        base.mark_point(size=60, filled=True, opacity=1).encode(x=x),
    ]
    return _svg(alt.layer(*layers), height=_rows_height(points, rows), labels=rows)


def thinned(lines: Sequence[Json], runs: int) -> int:
    """Every how many-th line of one of so many runs is drawn."""
    room = max(100, 2 * LINE_POINTS // runs)
    return max(1, -(-len(lines) // room))

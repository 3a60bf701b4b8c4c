"""Charts: altair specifications drawn to static SVG by vl-convert, one drawing per language.

Text stays text, so that the reader's own fonts show Chinese; colours are mapped to the page's by its style sheet.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from pandallm.report.run import (
    Json,
    Run,
    TokenLedger,
    chance_levels,
    headline_controls,
    headline_models,
)
from pandallm.report.text import asked_how, percent, text

INK, GRID, FAINT = "#1b1f24", "#e3e1dc", "#6b7280"
PALETTE = ["#6b7280", "#0072b2", "#d55e00", "#009e73", "#a64d9c", "#a07800", "#3f9fd8", "#7a5c3e"]
FATES = {
    "kept": "#0072b2",
    "held_out": "#3f9fd8",
    "duplicate": "#a07800",
    "dropped": "#d55e00",
    "contaminated": "#a64d9c",
    "quarantined": "#6b7280",
}
#: Drawn at this width and scaled to the page, so that letters stay readable on a phone of 390 pixels.
WIDTH = 420
LINE_POINTS = 400
MAX_PROMPT_CHARTS = 12

_TAGS = {"svg", "g", "path", "line", "rect", "text", "tspan", "defs", "clipPath", "title"}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

Points = list[dict[str, Any]]


def without_schema_checks() -> AbstractContextManager[Any]:
    """Draw without checking specifications against their schema, which takes most of the time; tests check them."""
    return debug_mode(False)


def headline_chart(run: Run, language: str) -> str:
    """Dot and interval per model, hollow dots for the controls, dashed chance; empty without a headline."""
    scores = run.scores
    points = [_point(name, s, "model") for name, s in headline_models(scores).items()]
    points += [_point(name, s, "control") for name, s in headline_controls(scores).items()]
    if not points:
        return ""
    names = [p["name"] for p in points]
    y = alt.Y("name:N", title=None, scale=alt.Scale(domain=names))
    x = alt.X("value:Q", title=text("axis_accuracy", language), scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(alt.Data(values=points))
    is_model = "datum.kind == 'model'"
    layers = [
        *_rules(chance_levels(scores, scores.get("headline_definition")), [6, 4]),
        base.mark_rule(size=2.5, color=PALETTE[1]).encode(x=_interval_x("low", x), x2="high:Q", y=y),
        base.transform_filter(is_model).mark_point(size=90, filled=True, opacity=1, color=PALETTE[1]).encode(x=x, y=y),
        base.transform_filter("!(" + is_model + ")")
        .mark_point(size=80, filled=True, opacity=1, fill="#ffffff", stroke=PALETTE[1], strokeWidth=2)
        .encode(x=x, y=y),
        base.mark_text(dy=-13, fontSize=12, color=INK).encode(x=x, y=y, text="label:N"),
    ]
    return _svg(alt.layer(*layers), height=44 * len(points), labels=names)


def prompt_chart(rows: Sequence[Json], models: Sequence[str], language: str) -> str:
    """Accuracy of one task and group: a line per prompt and method, a dot with interval per model."""
    points = [
        {
            **_point(str(r["model"]), r, "model"),
            "row": asked_how(r) + ("" if r["method"] == "likelihood" else f" · {text('generation', language)}"),
        }
        for r in rows
    ]
    prompts = list(dict.fromkeys(p["row"] for p in points))
    x = alt.X("value:Q", title=text("axis_accuracy", language), scale=alt.Scale(domain=[0, 100]))
    layers = [
        *_rules(sorted({r["chance"] for r in rows if r.get("chance") is not None}), [6, 4]),
        *_rules(sorted({r["constant"] for r in rows if r.get("constant") is not None}), [2, 3]),
        *_dots(points, "row", prompts, "name", _names(points, models), x),
    ]
    return _svg(alt.layer(*layers), height=_rows_height(points, prompts), labels=prompts)


def loss_chart(lines: Sequence[Json], language: str) -> str:
    """Loss over trained tokens: the whole in ink, every source in colour. Every k-th step is drawn where there are many.

    Over steps where the lines do not tell every step's tokens.
    """
    return _curve(lines, "loss", "loss_by_source", "all_sources", "axis_loss", language, trained_tokens(lines))


def held_out_chart(lines: Sequence[Json], language: str, tokens: Mapping[int, int] | None = None) -> str:
    """Bits per byte of held-out text: the whole in ink, every language in colour.

    tokens: of `trained_tokens`, of the stage's own lines, for the axis; over steps without.
    """
    return _curve(lines, "bits_per_byte", "by_language", "all_text", "axis_bpb", language, tokens or {})


def trained_tokens(lines: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Step -> tokens trained up to its end, 0 at step 0; empty where a step or its tokens are missing from the lines."""
    reached = {0: 0}
    for step, line in enumerate(lines, 1):
        if line["step"] != step or line.get("trained_tokens") is None:
            return {}
        reached[step] = reached[step - 1] + int(line["trained_tokens"])
    return reached if lines else {}


def _curve(
    lines: Sequence[Json],
    whole_key: str,
    parts_key: str,
    total_text: str,
    axis: str,
    language: str,
    tokens: Mapping[int, int],
) -> str:
    total = text(total_text, language)
    if any(line["step"] not in tokens for line in lines):
        tokens = {}
    points: Points = []
    for line in lines[:: thinning(len(lines))]:
        at = tokens[line["step"]] if tokens else line["step"]
        if line.get(whole_key) is not None:
            points.append({"at": at, "loss": line[whole_key], "name": total})
        for part, value in (line.get(parts_key) or {}).items():
            if value is not None:
                points.append({"at": at, "loss": value, "name": _clean(part)})
    if not points:
        return ""
    sources = [n for n in dict.fromkeys(p["name"] for p in points) if n != total]
    if len(sources) == 1:  # the one source's line is the whole's
        points, sources = [p for p in points if p["name"] == total], []
    domain = [*sources, total]
    colours = [PALETTE[1 + i % (len(PALETTE) - 1)] for i in range(len(sources))]
    dashes = [[1, 0] if i < len(PALETTE) - 1 else [4, 2] for i in range(len(sources))]
    legend = _legend() if sources else None
    encoding = {
        "x": alt.X(
            "at:Q",
            title=text("axis_trained" if tokens else "axis_step", language),
            axis=alt.Axis(grid=False, tickCount=5, format="~s" if tokens else ",d"),
        ),
        "y": alt.Y(
            "loss:Q",
            title=text(axis, language),
            scale=alt.Scale(zero=False, nice=True),
            axis=alt.Axis(tickCount=5),
        ),
        "color": alt.Color("name:N", scale=alt.Scale(domain=domain, range=[*colours, INK]), legend=legend),
        "strokeDash": alt.StrokeDash("name:N", scale=alt.Scale(domain=domain, range=[*dashes, [1, 0]]), legend=legend),
    }
    # Two data sets instead of a filter on names: names from data never become part of an expression.
    by_source, whole = [p for p in points if p["name"] != total], [p for p in points if p["name"] == total]
    layers = [
        alt.Chart(alt.Data(values=by_source)).mark_line(strokeWidth=1, opacity=0.85).encode(**encoding),
        alt.Chart(alt.Data(values=whole)).mark_line(strokeWidth=1.8).encode(**encoding),
    ]
    return _svg(alt.layer(*layers), height=220)


def thinning(lines: int) -> int:
    """Every how many-th logged step is drawn."""
    return -(-lines // LINE_POINTS) if lines else 1


def funnel_chart(ledger: Json, language: str) -> str:
    """Share of each source's records by what became of them; the `dropped` part holds all other reasons."""
    points: Points = []
    present: dict[str, bool] = {}
    sources = ledger.get("sources") or {}
    for source, entry in sources.items():
        for i, (fate, records) in enumerate(fates(entry).items()):
            if records and entry.get("records"):
                present[fate] = True
                points.append(
                    {
                        "name": _clean(source),
                        "fate": text(fate, language),
                        "order": i,
                        "share": 100 * records / entry["records"],
                    }
                )
    if not points:
        return ""
    shown = [fate for fate in FATES if fate in present]
    names = [_clean(s) for s in sources]
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_bar(size=16)
        .encode(
            y=alt.Y("name:N", title=None, scale=alt.Scale(domain=names)),
            x=alt.X("share:Q", title=text("axis_share", language), scale=alt.Scale(domain=[0, 100], nice=False)),
            color=alt.Color(
                "fate:N",
                scale=alt.Scale(domain=[text(f, language) for f in shown], range=[FATES[f] for f in shown]),
                legend=_legend(),
            ),
            order="order:Q",
        )
    )
    return _svg(chart, height=28 * len(names), labels=names)


def fates(entry: Json) -> dict[str, int]:
    """Records of one source by fate, as the corpus ledger counts them."""
    reasons = {reason: _records(part) for reason, part in (entry.get("dropped") or {}).items()}
    named = {fate: reasons.pop(fate, 0) for fate in ("duplicate", "contaminated")}
    return {
        "kept": _records(entry.get("kept")),
        "held_out": _records(entry.get("held_out")),
        "duplicate": named["duplicate"],
        "dropped": sum(reasons.values()),
        "contaminated": named["contaminated"],
        "quarantined": _records(entry.get("quarantined")),
    }


def mix_chart(ledger: TokenLedger, language: str) -> str:
    """Tokens that training reads (`exposures`) per source; a tick where the recipe wants a share of them."""
    points: Points = [
        {"name": _clean(source), "tokens": entry["exposures"], "label": f"{entry['exposures']:,}"}
        for source, entry in ledger.sources.items()
        if entry.get("exposures") is not None
    ]
    if not points:
        return ""
    names = [p["name"] for p in points]
    whole = ledger.total.get("exposures") or sum(p["tokens"] for p in points)
    wanted: Points = [
        {"name": _clean(source), "tokens": entry["wanted_share"] * whole}
        for source, entry in ledger.sources.items()
        if entry.get("wanted_share") is not None
    ]
    y = alt.Y("name:N", title=None, scale=alt.Scale(domain=names))
    # Room on the right for the longest bar's number.
    longest = max(1, *(p["tokens"] for p in points + wanted))
    x = alt.X(
        "tokens:Q",
        title=text("axis_tokens", language),
        scale=alt.Scale(domain=[0, 1.3 * longest], nice=False),
        axis=alt.Axis(tickCount=4, format="~s"),
    )
    base = alt.Chart(alt.Data(values=points)).encode(y=y, x=x)
    layers = [
        base.mark_bar(size=16, color=PALETTE[1]),
        *(
            [alt.Chart(alt.Data(values=wanted)).mark_tick(thickness=2.5, size=24, color=INK).encode(y=y, x=x)]
            if wanted
            else []
        ),
        base.mark_text(align="left", dx=8, color=INK, fontSize=11).encode(text="label:N"),
    ]
    return _svg(alt.layer(*layers), height=28 * len(names), labels=names)


def bits_chart(rows: Sequence[Json], models: Sequence[str], language: str) -> str:
    """Bits per byte of one language: a line per held-out source, a dot with interval per model."""
    points = [
        {
            "name": _clean(r["model"]),
            "row": _clean(r.get("source") or r.get("corpus") or text("all_sources", language)),
            "value": r["bits_per_byte"],
            "low": r.get("low"),
            "high": r.get("high"),
        }
        for r in rows
    ]
    sources = list(dict.fromkeys(p["row"] for p in points))
    x = alt.X("value:Q", title=text("axis_bpb", language), scale=alt.Scale(zero=True))
    layers = _dots(points, "row", sources, "name", _names(points, models), x)
    return _svg(alt.layer(*layers), height=_rows_height(points, sources), labels=sources)


def change_chart(changes: Sequence[Json], language: str) -> str:
    """Change of bits per byte between two models, a colour per language; right of 0 is forgetting."""
    points = [
        {
            "name": _clean(c["language"]),
            "row": _clean(f"{c['a']} → {c['b']}"),
            "value": 100 * c["change"],
            "low": None if c.get("low") is None else 100 * c["low"],
            "high": None if c.get("high") is None else 100 * c["high"],
        }
        for c in changes
    ]
    return _forest(points, text("axis_change", language), language_colours=True)


def difference_chart(differences: Sequence[Json], language: str) -> str:
    """Differences b - a in percentage points, a colour per what was compared."""
    points = [
        {
            "name": _clean(d.get("what") or ""),
            "row": _clean(f"{d['a']} → {d['b']}"),
            "value": 100 * d["difference"],
            "low": None if d.get("low") is None else 100 * d["low"],
            "high": None if d.get("high") is None else 100 * d["high"],
        }
        for d in differences
    ]
    return _forest(points, text("axis_points", language))


def _forest(points: Points, title: str, language_colours: bool = False) -> str:
    if not points:
        return ""
    rows = list(dict.fromkeys(p["row"] for p in points))
    names = list(dict.fromkeys(p["name"] for p in points))
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=True))
    # Colours other than the models', which mean something else elsewhere on the page.
    colours = PALETTE[3:] + PALETTE[:3] if language_colours else PALETTE[1:]
    layers = [*_rules([0.0], [1, 0]), *_dots(points, "row", rows, "name", names, x, colours)]
    return _svg(alt.layer(*layers), height=_rows_height(points, rows), labels=rows)


def _dots(
    points: Points, row: str, rows: list[str], name: str, names: list[str], x: Any, colours: Sequence[str] = PALETTE
) -> list[alt.Chart]:
    """Interval rules and dots: one band per `row`, one offset and colour per `name`."""
    y = alt.Y(f"{row}:N", title=None, scale=alt.Scale(domain=rows, paddingInner=0.25, paddingOuter=0.12))
    offset = alt.YOffset(f"{name}:N", scale=alt.Scale(domain=names))
    colour = alt.Color(
        f"{name}:N",
        scale=alt.Scale(domain=names, range=[colours[i % len(colours)] for i in range(len(names))]),
        legend=_legend() if len(names) > 1 else None,
    )
    base = alt.Chart(alt.Data(values=points)).encode(y=y, yOffset=offset, color=colour)
    return [
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(size=2)
        .encode(x=_interval_x("low", x), x2="high:Q"),
        base.mark_point(size=60, filled=True, opacity=1).encode(x=x),
    ]


def _interval_x(field: str, x: Any) -> Any:
    """The same axis read from another field."""
    other = x.copy(deep=True)
    other.shorthand = f"{field}:Q"
    return other


def _rules(values: Sequence[float], dash: list[int]) -> list[alt.Chart]:
    """Upright lines at shares (0 to 1) of the percent axis."""
    return [
        alt.Chart(alt.Data(values=[{"at": 100 * v}]))
        .mark_rule(color=FAINT, strokeDash=dash, size=1.2)
        .encode(x=alt.X("at:Q"))
        for v in values
    ]


def _point(name: str, score: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "name": _clean(name),
        "kind": kind,
        "value": 100 * score["accuracy"],
        "low": None if score.get("low") is None else 100 * score["low"],
        "high": None if score.get("high") is None else 100 * score["high"],
        "label": percent(score["accuracy"]),
    }


def _names(points: Points, models: Sequence[str]) -> list[str]:
    present = dict.fromkeys(p["name"] for p in points)
    known = [_clean(m) for m in models]
    return [m for m in known if m in present] + [n for n in present if n not in known]


def _rows_height(points: Points, rows: Sequence[str]) -> int:
    names = len({p["name"] for p in points})
    return len(rows) * max(30, 17 * names + 12)


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="top", columns=3, labelLimit=130, symbolStrokeWidth=2.5, symbolOpacity=1)


def _records(part: Any) -> int:
    return int(part.get("records") or 0) if isinstance(part, dict) else int(part or 0)


def _clean(name: Any) -> str:
    """A label without the characters that XML cannot hold or that end a line of JavaScript."""
    return _CONTROL_CHARACTERS.sub("\ufffd", str(name))


def _label_extent(labels: Sequence[str]) -> float:
    """Width kept for the names of the y axis: fonts of readers are wider than the one that draws (up to 8 px a letter at 12 px)."""
    return min(130.0, max(sum(13.0 if ord(c) > 0x2E80 else 7.6 for c in label) for label in labels) + 8)


def _svg(chart: Any, height: int, labels: Sequence[str] = ()) -> str:
    """Draw, check and fit for the page: no size of its own, no description of its own (the figure has one)."""
    font: dict[str, Any] = {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": INK,
        "titleColor": INK,
    }
    drawn = chart.properties(
        width=WIDTH, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"), padding=2
    ).configure(
        aria=False,
        background="transparent",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            **font, gridColor=GRID, domain=False, ticks=False, labelLimit=125, labelPadding=6, titlePadding=8
        ),
        axisY=alt.AxisConfig(grid=False, minExtent=_label_extent(labels) if labels else 0),
        axisQuantitative=alt.AxisConfig(grid=True, tickCount=5),
        legend=alt.LegendConfig(labelFontSize=12, labelColor=INK, padding=0, columnPadding=20),
    )
    svg: str = vl_convert.vegalite_to_svg(drawn.to_dict())
    root = ET.fromstring(svg)
    for element in root.iter():
        tag = element.tag.rsplit("}", 1)[-1]
        if tag not in _TAGS or any(
            a.lower().startswith("on") or a.rsplit("}", 1)[-1] == "href" for a in element.attrib
        ):
            raise ValueError(f"the drawing holds <{tag} {' '.join(element.attrib)}>, which the page must not")
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]+)">', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg)
    return re.sub(r' font-family="[^"]*"| class="background" aria-hidden="true"', "", svg)

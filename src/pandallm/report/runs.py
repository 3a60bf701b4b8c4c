"""runs.html: several finished runs on one page, made of runs.json and the runs' curves; computes nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from itertools import groupby
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from pandallm import __version__
from pandallm.report import charts
from pandallm.report.compare import Scale, _cell_heading, _verdict
from pandallm.report.run import Run, interval_includes_chance
from pandallm.report.runs_charts import MAX_LINES, changes_chart, curves_of, over_tokens, overlay_chart, thinned
from pandallm.report.runs_text import text
from pandallm.report.text import LANGUAGES, asked_how, count, duration, language_name, p_value, percent, signed
from pandallm.report.write import both, figure

Json = dict[str, Any]
#: Longer values of a recipe are cut on the page; runs.json holds them whole.
MAX_VALUE = 300


def render_runs(numbers: Json, runs: Sequence[Run], links: Mapping[str, str]) -> str:
    """The page's HTML. `numbers`: the content of runs.json, of `runs` in their order. `links`: run -> relative path of its own page,
    "" -> of a comparison's. Every name and value is escaped."""
    assets = files("pandallm.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        percent=percent, signed=signed, p=p_value, count=count, value=_value, href=quote, asked=asked_how, bits=_bits
    )
    comparison, names = numbers["comparison"], [r["name"] for r in numbers["runs"]]
    margin = f"{100 * numbers['settings']['margin']:g}"
    environment.globals.update(
        t=bilingual,
        took=lambda seconds: both(duration(seconds), duration(seconds, "zh")),
        verdict=partial(_verdict, margin=margin),
        heading=_cell_heading,
        definition=_definition,
        language=lambda code: both(*(language_name(code, n) for n in LANGUAGES)),
        at_chance=interval_includes_chance,
    )
    confidence = f"{100 * numbers['confidence']:g}%"
    with charts.without_schema_checks():
        curves = _curves(runs, names)
        changes = _changes(numbers["bits_per_byte"], names, confidence)
    script = (assets / "page.js").read_text(encoding="utf-8") + "page.start(() => {});"
    pairs = [
        p for cell in [*(comparison or {"cells": []})["cells"], *_some(numbers["headline"])] for p in cell["pairs"]
    ]
    levels = list(dict.fromkeys(f"{r['name']} {100 * r['confidence']:g}%" for r in numbers["runs"]))
    template = environment.from_string((assets / "runs.html.j2").read_text(encoding="utf-8"))
    return template.render(
        numbers=numbers,
        comparison=comparison,
        names=names,
        first=names[0],
        links=links,
        version=__version__,
        confidence=confidence,
        levels=levels if len({r["confidence"] for r in numbers["runs"]}) > 1 else [],
        alpha=f"{1 - numbers['confidence']:.2g}",
        margin=margin,
        accuracy=_accuracies(numbers["runs"]),
        difference=Scale.of_differences(pairs, numbers["settings"]["margin"]),
        table=_groups(numbers["table"]),
        curves=curves,
        drawn=MAX_LINES if len(names) > MAX_LINES else 0,
        changes=changes,
        facts=_facts(numbers["runs"]),
        recipes=[entry | {"by_state": _by_state(entry)} for entry in numbers["recipes"]],
        style=Markup("".join((assets / f"{name}.css").read_text(encoding="utf-8") for name in ("report", "compare"))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def bilingual(key: str, /, **values: Any) -> Markup:
    """A fixed text of the page in both languages, escaped."""
    return both(text(key, "en", **values), text(key, "zh", **values))


_figure = partial(figure, text)


def _some(value: Any) -> list[Any]:
    return [] if value is None else [value]


def _definition(definition: Json | None) -> Markup:
    """What a headline is of, in words."""
    if definition is None:
        return bilingual("no_headline")
    prompts, group = definition["prompts"], definition["group"]
    said = {}
    for language in LANGUAGES:
        everything = text("all_of_them", language)
        said[language] = text(
            "headline_what",
            language,
            method=text(definition["method"], language),
            tasks=", ".join(definition["tasks"]),
            prompts=everything if prompts == "all" else ", ".join(prompts),
            group=everything if group is None else group,
        )
        said[language] += f", {text('shots', language, n=definition['shots'])}" if definition["shots"] else ""
        said[language] += f", {text('chat', language)}" if definition["chat"] else ""
    return both(said["en"], said["zh"])


def _accuracies(runs: Sequence[Json]) -> Scale | None:
    """One axis for all headlines with their marks; None without any."""
    found = [r["headline"] for r in runs if r["headline"]]
    cells = [
        {"chance": h["chance"], "constant": {"accuracy": h["constant"]}, "scores": [h], "by_prompt": []} for h in found
    ]
    return Scale.of_accuracies(cells) if cells else None


def _groups(table: Sequence[Json]) -> list[Json]:
    """The score table's lines by task and group, each with the chance levels of its runs."""
    groups = []
    for (title, task, group), lines in groupby(table, key=lambda r: (r["title"], r["task"], r["group"])):
        rows = []
        for line in lines:
            levels = sorted({s["chance"] for s in line["scores"] if s and s["chance"] is not None})
            rows.append(line | {"chance": " / ".join(percent(c) for c in levels) or "–"})
        groups.append({"title": title, "task": task, "group": group, "rows": rows})
    return groups


def _changes(bits: Sequence[Json], names: Sequence[str], confidence: str) -> Markup:
    """Changes of whole languages against the first run, drawn."""
    rows = [
        {"run": name, "language": line["language"], **change}
        for line in bits
        if line["corpus"] == "all"
        for name, change in zip(names, line["changes"])
        if change
    ]
    return _figure(partial(changes_chart, rows, names), "bits_caption", a=names[0], confidence=confidence)


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[Markup]:
    """A chart per stage that two runs trained: training loss, then held-out text where two runs watched it."""
    drawn = []
    for stage in dict.fromkeys(stage for run in runs for stage in run.metrics):
        trained = {name: run.metrics[stage] for name, run in zip(names, runs) if stage in run.metrics}
        watched = {name: run.held_out[stage] for name, run in zip(names, runs) if stage in run.held_out}
        for lines, kind, key, axis in (
            (trained, "loss", "loss", "axis_loss"),
            (watched, "held_out", "bits_per_byte", "axis_bpb"),
        ):
            curves = curves_of(lines, trained)[:MAX_LINES]
            if len(curves) < 2:
                continue
            every = max(thinned(of_run, len(curves)) for _, of_run, _ in curves)
            thin = [text("thin", n, every=every) if every > 1 else "" for n in LANGUAGES]
            caption = f"{kind}_{'tokens' if over_tokens(curves) else 'steps'}"
            drawn.append(_captioned(partial(overlay_chart, curves, key, axis), caption, stage, thin))
    return [f for f in drawn if f]


def _captioned(draw: Any, caption: str, stage: str, thin: Sequence[str]) -> Markup:
    """A figure whose caption says, in its own language, how many points are drawn."""

    def words(key: str, language: str, **values: Any) -> str:
        return text(key, language, thin=thin[LANGUAGES.index(language)], **values)

    return figure(words, draw, caption, stage=stage)


def _facts(runs: Sequence[Json]) -> list[tuple[str, list[Any], bool]]:
    """Lines (name, value per run, whether they differ) on what made the runs; machine and versions by their fields."""
    lines: dict[str, list[Any]] = {}
    for k, run in enumerate(runs):
        flat = {name: run[name] for name in ("recipe", "seed", "model", "started", "peak_memory_gib")}
        flat |= {str(name): value for part in ("machine", "versions") for name, value in run[part].items()}
        for name, value in flat.items():
            lines.setdefault(name, [None] * len(runs))[k] = value
    return [(name, values, any(v != values[0] for v in values)) for name, values in lines.items()]


def _by_state(entry: Json) -> dict[str, str]:
    """state -> names of the recipe's stages that are in it."""
    found: dict[str, list[str]] = {}
    for stage in entry["stages"]:
        found.setdefault(stage["state"], []).append(stage["name"])
    return {state: ", ".join(names) for state, names in found.items()}


def _value(value: Any) -> str:
    """A setting as JSON, a plain text as it is; long ones are cut."""
    written = value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
    return written if len(written) <= MAX_VALUE else written[: MAX_VALUE - 1] + "…"


def _bits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

"""report.html of a study: one file made of results.json; computes nothing."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from pandallm import __version__
from pandallm.report import study_text as words
from pandallm.report.charts import mix_chart, without_schema_checks
from pandallm.report.run import TokenLedger
from pandallm.report.study_charts import dose_chart, forest_chart, frontier_chart, power_chart, prompts_chart
from pandallm.report.study_questions import MAX_PAGE, OfSeed, SeedPacks, pack_seeds
from pandallm.report.study_words import text
from pandallm.report.text import LANGUAGES, count, duration, p_value
from pandallm.report.text import size as bytes_of
from pandallm.report.write import bilingual as run_text
from pandallm.report.write import both, figure

Json = dict[str, Any]
#: Charts of this many comparisons stay readable.
MAX_ROWS = 24
MAX_DOSES = 24
MAX_MIXES = 12
#: Room for the section around the questions, in bytes.
NOTES = 8_000


def render_study(
    results: Json,
    answers: Mapping[int, Callable[[], OfSeed]] | None = None,
    links: Mapping[str, Sequence[tuple[int, str]]] | None = None,
    *,
    with_text: bool = True,
) -> str:
    """The page's HTML, below 3 MB. Every name, sentence, question and answer of the study is escaped.

    answers: seed -> what reads its rows and questions; seeds for which there is no room are left out, and the page says so. links: arm ->
    (seed, relative link) of runs with a report of their own. `with_text=False` leaves out every question, option and completion.
    """
    assets = files("pandallm.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals.update(
        t=bilingual,
        run_text=run_text,
        both=both,
        side=words.side,
        kind=partial(_kind, results),
        arms_of=partial(_arms, results),
    )
    environment.filters.update(
        value=words.value,
        effect=words.effect,
        size=words.size,
        count=count,
        bytes=bytes_of,
        flops=words.flops,
        duration=duration,
        percent=lambda share: "–" if share is None else f"{100 * share:.1f}%",
        p=lambda p: "–" if p is None else p_value(p),
        range=lambda row, kind: words.interval(row, kind, words.effect),
        span=lambda row, kind: words.interval(row, kind, words.value),
    )
    script = "".join((assets / name).read_text(encoding="utf-8") for name in ("page.js", "report.js"))
    confidence = f"{100 * results['confidence']:g}%"
    with without_schema_checks():
        forests, doses, mixes = _forests(results, confidence), _doses(results), _mixes(results)
        power = _figure(partial(power_chart, results["power"], _kind(results, results["primary"])), "power_caption")
        frontier = _figure(partial(frontier_chart, _last_models(results)), "frontier")
    template = environment.from_string((assets / "study.html.j2").read_text(encoding="utf-8"))
    draw = partial(
        template.render,
        results=results,
        failures=words.failures(results),
        made=words.made_line(results),
        frontier=frontier,
        power_figure=power,
        power_at=words.POWER_AT,
        confidence=confidence,
        alpha=f"{1 - results['confidence']:.2g}",
        forests=forests,
        doses=doses,
        prompts=_prompts(results, confidence),
        mixes=mixes,
        forgetting=_forgetting(results),
        sources=words.sources_table(results),
        markdown=words.study_markdown(results),
        latex=words.study_latex(results),
        version=__version__,
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        links=links or {},
        with_text=with_text,
    )
    # What the page weighs without its questions says how many of them it takes.
    page: str = draw(questions=SeedPacks())
    if not answers:
        return page
    return str(draw(questions=pack_seeds(answers, with_text, MAX_PAGE - len(page.encode()) - NOTES)))


_figure = partial(figure, text)


def bilingual(key: str, /, **values: Any) -> Markup:
    """A fixed text in both languages; the page shows one of them. Values are escaped."""
    return both(text(key, "en", **values), text(key, "zh", **values))


def _kind(results: Json, metric: str) -> str:
    return str(results["metrics"][metric]["kind"])


def _forests(results: Json, confidence: str) -> list[Markup]:
    """The claims as forest plots: one of accuracies, one of bits per byte."""
    drawn = []
    for relative, caption in ((False, "forest_accuracy"), (True, "forest_bits")):
        rows = [
            c | {"label": f"{c['name']}: {words.side(c['b'])} / {words.side(c['a'])}" if len(c["b"]) > 1 else c["name"]}
            for c in results["contrasts"]
            if c["relative"] is relative
        ]
        drawn.append(_figure(partial(forest_chart, rows[:MAX_ROWS], relative), caption, confidence=confidence))
    return [figure for figure in drawn if figure]


def _doses(results: Json) -> list[Markup]:
    """A chart per factor and metric, the primary metric first."""
    metrics = [results["primary"], *(m for m in results["metrics"] if m != results["primary"])]
    figures = []
    for factor in results["factors"]:
        for metric in metrics:
            rows = [r for r in results["doses"] if r["factor"] == factor and r["metric"] == metric]
            draw = partial(dose_chart, rows, _kind(results, metric))
            figures.append(_figure(draw, "dose_caption", metric=metric, factor=factor))
    return [figure for figure in figures if figure][:MAX_DOSES]


def _prompts(results: Json, confidence: str) -> list[Json]:
    """Accuracies by prompt: {"metric", "rows", "prompts": names in order, "figure"}."""
    names = {arm["name"]: words.side(arm["levels"]) for arm in results["arms"]}
    found = []
    for metric in results["metrics"]:
        rows = [row for row in results["prompts"] if row["metric"] == metric]
        if rows:
            drawn = _figure(
                partial(prompts_chart, rows[:MAX_ROWS], names), "prompts_caption", metric=metric, confidence=confidence
            )
            prompts = list(dict.fromkeys(prompt for row in rows for prompt in row["prompts"]))
            found.append({"metric": metric, "rows": rows, "prompts": prompts, "figure": drawn, "names": names})
    return found


def _mixes(results: Json) -> list[Markup]:
    """The token mixes of several sources, one chart for all arms that read the same."""
    figures: list[Markup] = []
    for mix in results["mixes"]:
        if len(mix["sources"]) > 1 and len(figures) < MAX_MIXES:
            names = {n: _arms(results, mix["arms"], n) for n in LANGUAGES}
            ledger = TokenLedger(mix["sources"], {})
            figures.append(figure(partial(_mix_words, mix["stage"], names), partial(mix_chart, ledger), "mix_caption"))
    return [figure for figure in figures if figure]


def _mix_words(stage: str, arms: dict[str, str], key: str, language: str) -> str:
    return text(key, language, stage=stage, arms=arms[language])


def _arms(results: Json, arms: list[str], language: str | None = None) -> Markup | str:
    """Names of the arms, or `all arms`."""
    if len(arms) == len(results["arms"]) > 1:
        return bilingual("all_arms") if language is None else text("all_arms", language)
    return ", ".join(arms)


def _last_models(results: Json) -> list[Json]:
    """Bits per byte in Chinese and English of each arm's last model: {"arm", "zh", "en"}, each with its mean and seeds."""
    last = {r["arm"]: r["model"] for r in results["forgetting"]}  # models come in the order of the stages
    found = {(r["arm"], r["model"], r["language"]): r for r in results["forgetting"]}
    arms = [{"arm": a, **{lang: found.get((a, m, lang)) for lang in ("zh", "en")}} for a, m in last.items()]
    return [arm for arm in arms if arm["zh"] and arm["en"]]


def _forgetting(results: Json) -> Json:
    """Rows (arm, model) and columns (languages) of the forgetting matrix; a cell says whether it is surely worse or better."""
    languages = list(dict.fromkeys(r["language"] for r in results["forgetting"]))
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for r in results["forgetting"]:
        change, sure = r["change"], ""
        if change and change["low"] is not None:
            sure = "bad" if change["low"] > 0 else "good" if change["high"] < 0 else ""
        rows.setdefault((r["arm"], r["model"]), {})[r["language"]] = r | {"sure": sure}
    return {"languages": languages, "rows": [{"arm": a, "model": m, "cells": cells} for (a, m), cells in rows.items()]}

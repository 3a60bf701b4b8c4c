"""report.html: one file made of a run folder's files."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pandallm.report import charts
from pandallm.report.published import published_of
from pandallm.report.questions import pack_questions
from pandallm.report.run import Json, Run, interval_includes_chance, read_run
from pandallm.report.summary import summary
from pandallm.report.tables import latex_table, markdown_table
from pandallm.report.text import LANGUAGES, asked_how, count, duration, p_value, percent, signed, size, text
from pandallm.store import write_text


def write_report(run: Path, out: Path | None = None, *, text: bool = True) -> Path:
    """Write one self-contained HTML page of a run folder; returns its path (`out`, or report.html in the run folder).

    `text=False` leaves out every question, option and completion: ids, choices and scores stay. Only files of the run
    folder are read and no statistic is computed again. Raises BadInput when manifest.json or scores.json is missing.
    """
    page = render(read_run(run), with_text=text)
    target = out or run / "report.html"
    write_text(target, page)
    return target


def render(run: Run, with_text: bool = True) -> str:
    """The page's HTML."""
    assets = files("pandallm.report") / "assets"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "signed": signed,
        "p": p_value,
        "count": count,
        "size": size,
    }
    for name, write in {**filters, "duration": duration}.items():
        environment.filters[name] = partial(_or_none, write)
    environment.filters["asked"] = asked_how
    environment.globals.update(
        t=bilingual,
        both=both,
        published=_published,
        includes_chance=interval_includes_chance,
        interval_picture=interval_picture,
    )
    script = "".join((assets / name).read_text(encoding="utf-8") for name in ("page.js", "report.js"))
    scores = run.scores
    questions = pack_questions(run, with_text, script_texts())
    confidence = f"{100 * scores.get('confidence', 0.95):g}%"
    with charts.without_schema_checks():
        figures = _figures(run, confidence)
    template = environment.from_string((assets / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        run=run,
        manifest=run.manifest,
        scores=scores,
        with_text=with_text,
        style=Markup((assets / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        summary=summary(run),
        confidence=confidence,
        figures=figures,
        score_groups=_score_groups(scores),
        corpora={name: _corpus_rows(ledger) for name, ledger in run.corpora.items()},
        contamination=_contamination(run.contamination),
        prompt_spread=[p for p in scores.get("prompts") or [] if p.get("prompts", 0) > 1],
        questions=questions,
        markdown=markdown_table(scores),
        latex=latex_table(scores),
    )


def bilingual(key: str, /, **values: Any) -> Markup:
    """A fixed text in both languages; the page shows one of them. Values are escaped."""
    return both(text(key, "en", **values), text(key, "zh", **values))


def both(en: str, zh: str) -> Markup:
    """Two texts, both escaped, of which the page shows one."""
    return Markup('<span data-l="en">{}</span><span data-l="zh" lang="zh-CN">{}</span>').format(en, zh)


def _published(entry: Json) -> Markup:
    """The head of the paper's figures: whose they are, and whether they are of other questions."""
    other = [("" if entry["same"] else text("published_other", n)) for n in LANGUAGES]
    return both(*(text("published", n, n=count(entry["n"]), other=o) for n, o in zip(LANGUAGES, other)))


def _or_none(write: Callable[..., str], value: Any, *rest: Any) -> str:
    """Write a field; one that the file lacks is written as a null would be."""
    return write(None if isinstance(value, jinja2.Undefined) else value, *rest)


def interval_picture(row: Json) -> Markup:
    """A small drawing of 0 to 100 %: interval, dot, and a tick at chance."""
    if row.get("low") is None or row.get("high") is None or row.get("accuracy") is None:
        return Markup("")
    tick = (
        Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="1" y2="13"/>').format(100 * row["chance"])
        if row.get("chance") is not None
        else ""
    )
    return Markup(
        '<svg class="mini" viewBox="-4 0 108 14" aria-hidden="true"><line class="track" x1="0" x2="100" y1="7" y2="7"/>{}'
        '<line class="span" x1="{:.1f}" x2="{:.1f}" y1="7" y2="7"/><circle cx="{:.1f}" cy="7" r="3.2"/></svg>'
    ).format(tick, 100 * row["low"], 100 * row["high"], 100 * row["accuracy"])


def figure(words: Callable[..., str], draw: Callable[[str], str], caption: str, /, **values: Any) -> Markup:
    """A chart in both languages with its caption, `words(caption, language, ..)`, which is also its description for screen readers."""
    drawn = {language: draw(language) for language in LANGUAGES}
    if not all(drawn.values()):
        return Markup("")
    captions = {language: words(caption, language, **values) for language in LANGUAGES}
    parts = [
        Markup('<div class="chart" data-l="{}" lang="{}" role="img" aria-label="{}">{}</div>').format(
            language, "zh-CN" if language == "zh" else "en", captions[language], Markup(svg)
        )
        for language, svg in drawn.items()
    ]
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
        Markup("").join(parts), both(captions["en"], captions["zh"])
    )


_figure = partial(figure, text)


def _figures(run: Run, confidence: str) -> dict[str, list[Markup]]:
    """Every chart of the page, by section; sections without data are empty lists."""
    scores, models = run.scores, run.models
    bits: dict[str, list[Json]] = {}
    for row in scores.get("bits_per_byte") or []:
        bits.setdefault(str(row["language"]), []).append(row)
    figures = {
        "headline": [_figure(partial(charts.headline_chart, run), "headline_caption", confidence=confidence)],
        "curves": [
            *(_loss_figure(stage, lines) for stage, lines in run.metrics.items()),
            *(
                _figure(
                    partial(charts.held_out_chart, lines, tokens=charts.trained_tokens(run.metrics.get(stage) or [])),
                    "held_out_caption",
                    stage=stage,
                )
                for stage, lines in run.held_out.items()
            ),
        ],
        "funnel": [
            _figure(partial(charts.funnel_chart, ledger), "funnel_caption", corpus=name)
            for name, ledger in run.corpora.items()
        ],
        "mix": [
            _figure(partial(charts.mix_chart, ledger), "mix_caption", stage=name) for name, ledger in run.packs.items()
        ],
        "prompts": [
            _figure(partial(charts.prompt_chart, group["rows"], models), "prompt_caption", task=group["name"])
            for group in _score_groups(scores)[: charts.MAX_PROMPT_CHARTS]
        ],
        "bits": [
            _figure(partial(charts.bits_chart, rows, models), "bpb_caption", language=name, confidence=confidence)
            for name, rows in bits.items()
        ],
        "forgetting": [
            _figure(
                partial(charts.change_chart, scores.get("bits_per_byte_changes") or []),
                "forgetting_caption",
                confidence=confidence,
            )
        ],
        "differences": [
            _figure(
                partial(charts.difference_chart, scores.get("differences") or []),
                "differences_caption",
                confidence=confidence,
            )
        ],
    }
    return {name: [f for f in drawn if f] for name, drawn in figures.items()}


def _loss_figure(stage: str, lines: list[Json]) -> Markup:
    """One stage's curve; the caption says when only every k-th step is drawn."""
    every, tokens = charts.thinning(len(lines)), charts.trained_tokens(lines)
    thin = {"en": f", one in {every} drawn" if every > 1 else "", "zh": f"（每 {every} 步画一点）" if every > 1 else ""}
    caption = "curves_tokens_caption" if tokens else "curves_caption"

    def words(key: str, language: str, **values: Any) -> str:
        return text(key, language, thin=thin[language], **values)

    facts = {"stage": stage, "steps": f"{lines[-1]['step']:,}", "tokens": f"{max(tokens.values(), default=0):,}"}
    return figure(words, partial(charts.loss_chart, lines), caption, **facts)


def _score_groups(scores: Json) -> list[dict[str, Any]]:
    """The table's rows by task and group, in file order, with what the head of each group says."""
    table = scores.get("table") or []
    order: dict[tuple[str, str], int] = {}
    for row in table:
        order.setdefault((str(row["task"]), str(row.get("group") or "")), len(order))

    def place(row: Json) -> int:
        return order[str(row["task"]), str(row.get("group") or "")]

    groups = []
    for _, rows in groupby(sorted(table, key=place), key=place):
        members = list(rows)
        first = members[0]
        name = str(first.get("title") or first["task"])
        group = str(first.get("group") or "")
        groups.append(
            {
                "task": str(first["task"]),
                "title": name,
                "group": group,
                "name": f"{name} · {group}" if group else name,
                "near_chance": next((str(r["near_chance"]) for r in members if r.get("near_chance")), ""),
                "published": published_of(str(first["task"]), first.get("n")),
                "rows": members,
            }
        )
    return groups


def _corpus_rows(ledger: Json) -> list[dict[str, Any]]:
    """One line per source: its parts in records, other reasons by name, and whether they add up to what was read."""
    rows = []
    for source, entry in (ledger.get("sources") or {}).items():
        parts = charts.fates(entry)
        reasons = {r: p for r, p in (entry.get("dropped") or {}).items() if r not in ("duplicate", "contaminated")}
        rows.append(
            {
                "source": source,
                "records": entry.get("records"),
                "bytes": entry.get("bytes"),
                "parts": parts,
                "reasons": {r: p["records"] if isinstance(p, dict) else p for r, p in reasons.items()},
                "adds_up": sum(parts.values()) == entry.get("records"),
            }
        )
    return rows


#: Questions that documents hold most of, shown by name; all are in the run folder.
STRONGEST = 20


def _contamination(reports: Mapping[str, Json]) -> list[dict[str, Any]]:
    """One line per corpus and task, with the questions that documents hold most of."""
    lines = []
    for corpus, report in reports.items():
        for task, entry in (report.get("tasks") or {}).items():
            lines.append(
                {
                    "corpus": corpus,
                    "task": task,
                    "ngram": report.get("ngram_chars"),
                    "action": report.get("action"),
                    "questions": entry.get("questions"),
                    "touched": entry.get("touched"),
                    "share": entry["touched"] / entry["questions"] if entry.get("questions") else None,
                    "documents": entry.get("documents"),
                    "exclude": len(entry.get("exclude") or []),
                    "strongest": [
                        {**q, "document": q["documents"][0]}
                        for q in (entry.get("by_question") or [])[:STRONGEST]
                        if q.get("documents")
                    ],
                }
            )
    return lines


def script_texts() -> dict[str, dict[str, str]]:
    """The texts that the page's script writes, with their {holes} left open."""
    from pandallm.report.text import TEXT

    keys = (
        "found",
        "page",
        "context",
        "completion",
        "option_scores",
        "all_tasks",
        "all_prompts",
        "likelihood",
        "generation",
        "prompt",
        "search",
    )
    return {key: dict(zip(LANGUAGES, TEXT[key])) for key in keys}

"""The blueprint as Markdown: each sentence follows from a contrast's verdict, effect and interval by the rules of `advice`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pandallm.report.blueprint_words import words
from pandallm.report.study_text import effect, value
from pandallm.report.tables import escape_markdown
from pandallm.report.text import p_value

Json = Mapping[str, Any]
#: Language -> the page's name.
PAGES = {"en": "blueprint.md", "zh": "blueprint.zh-CN.md"}
#: Subjects in the page's order, and the kinds of factors that belong to each; plain fields belong to the last.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "quantity": ("budget", "quantity"),
    "quality": ("quality", "noise", "dedup", "leave_out"),
    "language": ("share", "language_share", "replay"),
    "staging": ("staging",),
    "vocabulary": ("vocabulary",),
    "training": (),
}
VERDICTS = ("reproduced", "refuted", "inconclusive")


def subject_of(subject: str | None, kind: str) -> str:
    """The subject that a study names, else that of its first factor's kind."""
    return subject or next((name for name, kinds in SUBJECTS.items() if kind in kinds), "training")


def render_blueprint(studies: Sequence[Json], language: str) -> str:
    """The page of one language.

    studies: {"results", "link" (of its tables), "file" (of the study, or None)} of each that was run; {"results": None, "name",
    "description", "description_zh", "subject", "file"} of each that was not. Names and claims are escaped.
    """
    w = partial(_words, language)
    by_subject: dict[str, list[Json]] = {name: [] for name in SUBJECTS}
    for study in studies:
        by_subject[_subject(study)].append(study)
    ran = [s for s in studies if s["results"]]
    lines = [f"# {w('title')}", "", w("made"), "", w("intro"), ""]
    if ran:
        verdicts = _verdicts(ran)
        lines.append(
            w("counts", run=len(ran), claims=sum(verdicts.values()), unrun=len(studies) - len(ran), **verdicts)
        )
    else:
        lines.append(w("none_run", unrun=len(studies)))
    if worlds := sum(s["results"]["world"] for s in ran):
        lines += ["", w("world", n=worlds)]
    heads = ("subject", "run", "reproduced_head", "refuted_head", "inconclusive_head", "unrun")
    lines += ["", _pipes([w(h) for h in heads]), _pipes(["---"] * len(heads))]
    for name, of_it in by_subject.items():
        done = [s for s in of_it if s["results"]]
        cells = [len(done), *_verdicts(done).values(), len(of_it) - len(done)]
        lines.append(_pipes([w(name), *map(str, cells)]))
    for name, of_it in by_subject.items():
        lines += ["", f"## {w(name)}", *_section(of_it, language)]
    return "\n".join(lines) + "\n"


def advice(c: Json, confidence: float) -> tuple[str, bool]:
    """(what a contrast says to do, whether b is the better side): choose, either, no_gain, no_loss, leaning, undecided, no_data.

    A claim that was reproduced is followed, one that was refuted is followed the other way where the other side surely is better by more
    than the margin, and else says that nothing is to be gained (or lost). `leaning`: one side surely is better, and it is open whether by
    more than the margin.
    """
    if c["effect"] is None:
        return "no_data", False
    b_better = (c["effect"] > 0) != c["relative"]  # of bits per byte fewer are better
    settled = c["p_holm"] is not None and c["p_holm"] < 1 - confidence
    if c["verdict"] == "inconclusive":
        return ("leaning" if settled else "undecided"), b_better
    if c["expect"] in ("same", "different"):
        alike = (c["expect"] == "same") == (c["verdict"] == "reproduced")
        return ("either" if alike else "choose"), b_better
    if c["verdict"] == "reproduced":
        return "choose", b_better
    if settled and b_better != (c["expect"] == "better") and abs(c["effect"]) > c["margin"]:
        return "choose", b_better
    return ("no_gain" if c["expect"] == "better" else "no_loss"), b_better


def _section(studies: Sequence[Json], language: str) -> list[str]:
    w = partial(_words, language)
    ran = [s for s in studies if s["results"]]
    lines: list[str] = []
    if not ran:
        lines += ["", w("nothing_run")]
    elif not any(c["verdict"] != "inconclusive" for s in ran for c in s["results"]["contrasts"]):
        lines += ["", w("nothing_found")]
    for study in ran:
        lines += _study(study, language)
    unrun = [s for s in studies if not s["results"]]
    if unrun:
        lines.append("")
    for s in unrun:
        text = escape_markdown(_own(s, "description", language))
        lines.append("- " + w("not_run", name=s["name"], file=s["file"], description=text).rstrip())
    return lines


def _study(study: Json, language: str) -> list[str]:
    """A study's heading, what it was made with, a line per claim, and the means of its primary metric."""
    w, results = partial(_words, language), study["results"]
    runs = results["runs"]
    description = escape_markdown(_own(results, "description", language)) or results["name"]
    facts = w(
        "facts",
        where=w("in_world") if results["world"] else w("in_text", recipe=results["recipe"].replace("`", "")),
        seeds=w("and").join(map(str, results["seeds"])),
        done=runs.get("complete", 0),
        total=runs["total"],
        failed=w("failed", n=runs["failed"]) if runs.get("failed") else "",
        machines=escape_markdown("; ".join(results["made"]["machines"])),
        links=w("results", link=study["link"]) + (w("file", file=study["file"]) if study["file"] else "") + w("stop"),
    )
    lines = ["", f"### {results['name']}", description, "", facts, ""]
    lines += ["- " + _line(c, study, language) for c in results["contrasts"]]
    metric = results["primary"]
    for factor in results["factors"]:
        found = [
            r for r in results["doses"] if r["factor"] == factor and r["metric"] == metric and r["mean"] is not None
        ]
        kind, unit = (
            results["metrics"][metric]["kind"],
            " %" if results["metrics"][metric]["kind"] == "accuracy" else "",
        )
        if found:
            told = w("and").join(f"`{factor}: {r['level']}` {value(r['mean'], kind)}{unit}" for r in found)
            lines += ["", f"{w('means', metric=_metric(results['metrics'][metric], language))} {told}{w('stop')}"]
    return lines


def _line(c: Json, study: Json, language: str) -> str:
    """One claim: what to do, the verdict, the numbers, the link."""
    w, results = partial(_words, language), study["results"]
    metric = results["metrics"][c["metric"]]
    kind = metric["kind"]
    a, b = _side(c["a"], language), _side(c["b"], language)
    key, b_better = advice(c, results["confidence"])
    margin = _amount(c["margin"], kind, language).lstrip("+")
    better, worse = (b, a) if b_better else (a, b)
    told = w(key, metric=_metric(metric, language), better=better, worse=worse, a=a, b=b, margin=margin)
    claim = escape_markdown(_own(c, "claim", language))
    verdict = (
        w("claimed", claim=claim, verdict=w(c["verdict"])) if claim else w("claimed_none", verdict=w(c["verdict"]))
    )
    parts = [f"**{told}**", verdict]
    if c["effect"] is not None:
        parts.append(_numbers(c, results, kind, language))
    return " ".join(
        [*parts, f"[{results['name']}]({study['link']})"]
    )  # in Chinese too: bold text that ends in a full stop does not end before a letter


def _numbers(c: Json, results: Json, kind: str, language: str) -> str:
    w = partial(_words, language)
    told = w(
        "numbers",
        a=_side(c["a"], language),
        b=_side(c["b"], language),
        effect=_amount(c["effect"], kind, language),
        confidence=f"{100 * results['confidence']:g} %",
        low=effect(c["low"], kind),
        high=effect(c["high"], kind),
        p="–" if c["p_holm"] is None else p_value(c["p_holm"]),
        seeds=len(c["seeds"]),
        all=len(results["seeds"]),
    )
    if c["verdict"] == "inconclusive" and c["detectable"] is not None:
        told += w("finds", detectable=_amount(c["detectable"], kind, language).lstrip("+"))
    return told + w("stop")


def _amount(number: float, kind: str, language: str) -> str:
    """An effect with its unit."""
    text = effect(number, kind)
    return _words(language, "points", value=text) if kind == "accuracy" else text


def _metric(metric: Json, language: str) -> str:
    """A metric in words, from its settings."""
    w = partial(_words, language)
    if metric["kind"] == "accuracy":
        told = w("accuracy", tasks=escape_markdown(w("and").join(metric["tasks"])))
        if metric["prompts"] != "all":
            told += w("prompts", prompts=escape_markdown(w("and").join(metric["prompts"])))
        if metric["group"] is not None:
            told += w("group", group=escape_markdown(metric["group"]))
    else:
        spoken = metric["language"]
        what = (
            w("text")
            if spoken is None
            else w(f"{spoken}_text")
            if spoken in ("zh", "en")
            else w("lang_text", language=spoken)
        )
        for field in ("corpus", "source"):
            if metric[field] is not None:
                what += w(f"of_{field}", **{field: metric[field]})
        told = w("bits", what=what)
    return told if metric["model"] == "last" else told + w("after", model=metric["model"])


def _side(levels: Mapping[str, str], language: str) -> str:
    return _words(language, "and").join(f"`{factor}: {level}`" for factor, level in levels.items())


def _own(row: Json, field: str, language: str) -> str:
    """A text of the study's own: in Chinese where it has one."""
    return str((row.get(f"{field}_zh") if language == "zh" else "") or row[field])


def _subject(study: Json) -> str:
    results = study["results"]
    if results is None:
        return str(study["subject"])
    return subject_of(results.get("subject"), next(iter(results["factors"].values()))["kind"])


def _verdicts(studies: Sequence[Json]) -> dict[str, int]:
    found = [c["verdict"] for s in studies for c in s["results"]["contrasts"]]
    return {v: found.count(v) for v in VERDICTS}


def _words(language: str, key: str, /, **values: Any) -> str:
    return words(key, language, **values)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

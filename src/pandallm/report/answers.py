"""answers.html: the models' answers side by side in blind order, one file made of the folder of `panda answers`."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pandallm import __version__
from pandallm.report.answers_text import TEXT
from pandallm.report.questions import script_json
from pandallm.report.text import LANGUAGES, language_name, p_value, percent
from pandallm.store import read_json, read_jsonl, write_text

Json = dict[str, Any]
#: Sentences that the script writes, their {holes} left open.
SCRIPT_TEXTS = (
    "progress",
    "kept",
    "not_kept",
    "clear",
    "clear_sure",
    "reveal_all",
    "reveal_sure",
    "verdict",
    "shown_first",
    "unparsed",
    "tie",
    "all_categories",
    "all_languages",
)


def write_answers(folder: Path) -> Path:
    """Write `folder`/answers.html from prompts.jsonl, answers.jsonl, answers.json and, where judged, judgements.jsonl.

    Every text of a model or prompt is escaped. Raises BadInput where one of the files is missing.
    """
    judgements = folder / "judgements.jsonl"
    page = render(
        read_json(folder / "answers.json"),
        list(read_jsonl(folder / "prompts.jsonl")),
        list(read_jsonl(folder / "answers.jsonl")),
        list(read_jsonl(judgements)) if judgements.is_file() else [],
    )
    write_text(folder / "answers.html", page)
    return folder / "answers.html"


def render(summary: Json, prompts: list[Json], answers: list[Json], judgements: list[Json]) -> str:
    """The page's HTML."""
    assets = files("pandallm.report") / "assets"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(t=_t, language_of=_language)
    environment.filters.update(percent=percent, p=p_value)
    script = "".join((assets / name).read_text(encoding="utf-8") for name in ("page.js", "answers.js"))
    template = environment.from_string((assets / "answers.html.j2").read_text(encoding="utf-8"))
    data = _page_data(summary, judgements) | {"text": {k: dict(zip(LANGUAGES, TEXT[k])) for k in SCRIPT_TEXTS}}
    return template.render(
        summary=summary,
        judge=summary.get("judge"),
        cards=_cards(summary, prompts, answers),
        categories=sorted({p["category"] for p in prompts if p["category"]}),
        languages=sorted({p["language"] for p in prompts if p["language"]}),
        style=Markup("".join((assets / name).read_text(encoding="utf-8") for name in ("report.css", "answers.css"))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(script_json(data)),
        version=__version__,
    )


def _t(key: str, /, **values: Any) -> Markup:
    """A fixed text in both languages; the page shows one of them. Values are escaped."""
    en, zh = (text.format(**values) for text in TEXT[key])
    return Markup('<span data-l="en">{}</span><span data-l="zh" lang="zh-CN">{}</span>').format(en, zh)


def _language(code: str) -> Markup:
    return Markup('<span data-l="en">{}</span><span data-l="zh" lang="zh-CN">{}</span>').format(
        language_name(code, "en"), language_name(code, "zh")
    )


def _cards(summary: Json, prompts: list[Json], answers: list[Json]) -> list[Json]:
    """Per prompt: its fields and, per user turn, the answers in the order shown; without the models' names."""
    said = {(a["id"], a["model"], a["turn"]): a for a in answers}
    return [
        {
            **prompt,
            "rounds": [
                {"user": turn, "answers": [said[prompt["id"], m, k] for m in summary["order"][prompt["id"]]]}
                for k, turn in enumerate(prompt["turns"])
            ],
        }
        for prompt in prompts
    ]


def _page_data(summary: Json, judgements: list[Json]) -> Json:
    """What the script needs: the order of each prompt as places in `models`, and the judge's replies."""
    models = [m["name"] for m in summary["models"]]
    judged: dict[str, list[Json]] = {}
    for row in judgements:
        if not row["identical"]:
            judged.setdefault(row["id"], []).append(
                {k: row[k] for k in ("a", "b", "first", "verdict", "preferred", "reply")}
            )
    return {
        "digest": summary["digest"],
        "models": models,
        "order": {p: [models.index(m) for m in order] for p, order in summary["order"].items()},
        "judged": judged,
    }

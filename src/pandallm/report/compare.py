"""compare.html: one file made of comparison.json and the rows behind it."""

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pandallm import __version__
from pandallm.report.compare_questions import Asked, Questions, disagreements
from pandallm.report.compare_text import script_texts, text
from pandallm.report.questions import script_json
from pandallm.report.text import count, p_value, percent, signed
from pandallm.report.write import both
from pandallm.store import write_text

Json = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_compare_page(
    comparison: Json, asked: Sequence[Asked], questions: Questions, out: Path, *, with_text: bool = True
) -> Path:
    """Write the page of a comparison (the content of comparison.json); computes no number anew. Returns `out`.

    `asked`: the rows that were compared, see `compare_questions`. `with_text=False` leaves out every passage, question, option and completion.
    """
    write_text(out, render_compare(comparison, asked, questions, with_text))
    return out


def render_compare(comparison: Json, asked: Sequence[Asked], questions: Questions, with_text: bool = True) -> str:
    """The page's HTML."""
    assets = files("pandallm.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    for name, write in {"percent": percent, "signed": signed, "p": p_value, "count": count}.items():
        environment.filters[name] = write
    margin = f"{100 * comparison['margin']:g}"
    environment.globals.update(
        t=bilingual,
        verdict=partial(_verdict, margin=margin),
        heading=_cell_heading,
        letters=LETTERS,
        sentence=partial(_sentence, margin=margin),
    )
    script = "".join((assets / name).read_text(encoding="utf-8") for name in ("page.js", "compare.js"))
    data = disagreements(comparison["models"], asked, questions, with_text)
    pairs = [p for cell in comparison["cells"] for p in cell["pairs"]]
    compared = [d for entry in comparison["published"] or [] for d in entry["differences"]]
    template = environment.from_string((assets / "compare.html.j2").read_text(encoding="utf-8"))
    return template.render(
        comparison=comparison,
        version=__version__,
        confidence=f"{100 * comparison['confidence']:g}%",
        alpha=f"{1 - comparison['confidence']:.2g}",
        margin=margin,
        with_text=with_text,
        settled=sum(p["verdict"] in ("better", "worse") for p in pairs),
        data={"total": data["total"], "scored": data["scored"], "shown": len(data["questions"])},
        data_json=Markup(script_json(data | {"text": script_texts()})),
        accuracy=Scale.of_accuracies(comparison["cells"]),
        difference=Scale.of_differences(pairs, comparison["margin"]),
        published=Scale.of_differences(compared, comparison["margin"]),
        style=Markup("".join((assets / f"{name}.css").read_text(encoding="utf-8") for name in ("report", "compare"))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def bilingual(key: str, /, **values: Any) -> Markup:
    """A fixed text of the page in both languages, escaped."""
    return both(text(key, "en", **values), text(key, "zh", **values))


def _verdict(pair: Json, margin: str) -> Markup:
    """The verdict on b in words; what it means stands in docs/compare.md."""
    code = pair["verdict"]
    if code == "undecided":
        if pair["detectable"] is None:
            return bilingual("undecided_one")
        return bilingual("undecided", detectable=f"{100 * pair['detectable']:.1f}")
    if code == "equivalent":
        return bilingual("equivalent", margin=margin)
    said = Markup('<b class="{}">{}</b>').format("good" if code == "better" else "bad", bilingual(code))
    return said + Markup(" ") + bilingual("within", margin=margin) if pair["equivalent"] else said


def _sentence(pair: Json, margin: str) -> Markup:
    """The verdict as a sentence with both names; `within` where a difference is established and yet smaller than the margin."""
    key, names = f"is_{pair['verdict']}", {"a": pair["a"], "b": pair["b"]}
    if pair["verdict"] == "undecided":
        if pair["detectable"] is None:
            return bilingual("is_undecided_one", **names)
        return bilingual(key, detectable=f"{100 * pair['detectable']:.1f}", **names)
    if pair["verdict"] == "equivalent":
        return bilingual(key, margin=margin, **names)
    said = bilingual(key, **names)
    return said + Markup(" ") + bilingual("within", margin=margin) if pair["equivalent"] else said


def _cell_heading(cell: Json) -> Markup:
    """`C3 · dev · likelihood`, with shots and chat template where used."""
    names = [Markup("{}").format(x) for x in (cell.get("title") or cell["task"], cell["group"]) if x]
    names.append(
        bilingual(cell["method"])
        if cell["method"] in ("likelihood", "generation")
        else Markup("{}").format(cell["method"])
    )
    if cell["shots"]:
        names.append(bilingual("shots", n=cell["shots"]))
    if cell["chat"]:
        names.append(bilingual("chat"))
    return Markup(" · ").join(names)


class Scale:
    """Numbers on a horizontal axis, as percentages of its width: drawings stretch with the page and stay sharp."""

    def __init__(self, low: float, high: float, step: float, sign: bool) -> None:
        self.low, self.high, self.step, self.sign = low, high, step, sign

    @classmethod
    def of_accuracies(cls, cells: Sequence[Json]) -> "Scale":
        """One axis for all scores, so that tasks can be compared by eye."""
        values = [v for c in cells for v in (c["chance"], c["constant"]["accuracy"])]
        values += [
            v for c in cells for s in [*c["scores"], *c["by_prompt"]] for v in (s["low"], s["high"], s["accuracy"])
        ]
        return cls._around([v for v in values if v is not None], 0.0, 1.0, False)

    @classmethod
    def of_differences(cls, pairs: Sequence[Json], margin: float) -> "Scale":
        values = [
            v for p in pairs for q in [p, *p.get("by_prompt", [])] for v in (q["low"], q["high"], q["difference"])
        ]
        return cls._around([-margin, margin, *(v for v in values if v is not None)], -1.0, 1.0, True)

    @classmethod
    def _around(cls, values: Sequence[float], least: float, most: float, sign: bool) -> "Scale":
        low, high = min(values), max(values)
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 6 or s == 0.5)
        low = math.floor(low / step + 1e-9) * step
        high = max(low + step, math.ceil(high / step - 1e-9) * step)
        return cls(max(least, min(low, most - step)), min(most, high), step, sign)

    def at(self, value: float) -> str:
        return f"{100 * (min(self.high, max(self.low, value)) - self.low) / (self.high - self.low):.2f}%"

    def axis(self) -> Markup:
        """Tick labels, in per cent or points."""
        ticks = range(math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9) + 1)
        labels = []
        for k in ticks:
            place = self.at(k * self.step)
            anchor = "start" if place == "0.00%" else "end" if place == "100.00%" else "middle"
            number = f"{100 * k * self.step:{'+' if self.sign and k else ''}.0f}".replace("-", "−")
            labels.append(Markup('<text x="{}" y="12" text-anchor="{}">{}</text>').format(place, anchor, number))
        return Markup('<svg class="plot axis" aria-hidden="true">{}</svg>').format(Markup("").join(labels))

    def dot(
        self, value: float | None, low: float | None, high: float | None, marks: Sequence[tuple[str, float]] = ()
    ) -> Markup:
        """Interval and dot, with vertical marks of a class each. The numbers stand beside it, so it is hidden from readers."""
        parts = [Markup('<line class="grid" x1="0" x2="100%" y1="50%" y2="50%"/>')]
        for name, place in marks:
            if self.low <= place <= self.high:
                parts.append(
                    Markup('<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="100%"/>').format(name, self.at(place))
                )
        if low is not None and high is not None:
            parts.append(
                Markup('<line class="span" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(self.at(low), self.at(high))
            )
        if value is not None:
            parts.append(Markup('<circle cx="{}" cy="50%" r="4"/>').format(self.at(value)))
        return Markup('<svg class="plot" aria-hidden="true">{}</svg>').format(Markup("").join(parts))

    def forest(self, row: Json, margin: float) -> Markup:
        """A difference: the band of the margin, the line at 0, interval and dot."""
        band = Markup('<rect class="band" x="{}" width="{}" y="0" height="100%"/>').format(
            self.at(-margin), f"{100 * 2 * margin / (self.high - self.low):.2f}%"
        )
        drawn = self.dot(row["difference"], row["low"], row["high"], [("zero", 0.0)])
        return Markup(str(drawn).replace('aria-hidden="true">', 'aria-hidden="true">' + str(band), 1))

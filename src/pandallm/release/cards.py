"""Model cards: Markdown from stored results, with nothing in them that was not measured or written in the recipe."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_PERCENT_NOTE = "Accuracy in percent, with its interval in brackets"


def _text(value: Any) -> str:
    """A value inside a Markdown table or line: one line, with nothing that Markdown or HTML would act on."""
    return (
        re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", " ".join(str(value).split()))
        .replace("&", "&amp;")
        .replace("\\<", "&lt;")
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows] + [""]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _between(entry: Mapping[str, Any], form: str, scale: float = 1.0) -> str:
    """The interval in brackets; a single cluster or document has none."""
    low, high = entry.get("low"), entry.get("high")
    return "(no interval)" if low is None or high is None else f"({scale * low:{form}} to {scale * high:{form}})"


def _interval(entry: Mapping[str, Any]) -> str:
    return f"{_percent(entry['accuracy'])} {_between(entry, '.1f', 100)}"


def model_card(manifest: dict[str, Any], scores: dict[str, Any], recipe: dict[str, Any]) -> str:
    """The model card of a run, as Markdown.

    manifest, scores, recipe: `manifest.json`, `scores.json` and the resolved recipe of a run folder (see `docs/design.md`). What a
    file lacks is left out of the card, or said to be missing; nothing is computed anew and nothing is claimed beyond it.
    """
    lines = [f"# {_text(manifest.get('name', 'A model'))}", ""]
    lines += [
        f"Made by pandallm {_text(manifest.get('pandallm', '(version not stored)'))}, seed {_text(manifest.get('seed', 'not stored'))}, "
        f"in {float(manifest.get('work_seconds', manifest.get('seconds', 0))):,.0f} s.",
        "",
    ]
    base = recipe.get("base")
    if base is not None:
        described = ", ".join(f"{k}: {v}" for k, v in base.items()) if isinstance(base, dict) else base
        lines += ["## Base", "", _text(described), ""]
    stages = [s for s in manifest.get("stages", []) if "trained_tokens" in s.get("facts", {})]
    if stages:
        facts = [(s["name"], s["facts"]) for s in stages]
        lines += ["## Training", ""]
        lines += _table(
            ("stage", "steps", "trained tokens", "final loss"),
            ((n, f.get("steps", ""), f"{f['trained_tokens']:,}", _loss(f.get("final_loss"))) for n, f in facts),
        )
    lines += ["## Results", "", *_results(scores)]
    lines += _bits_per_byte(scores)
    lines += [
        "## Limits",
        "",
        "The figures above are all that was measured. Nothing is known here about safety, bias, or tasks that are not listed; "
        "use of the weights is bound by the licences of the base and of the training data.",
        "",
    ]
    return "\n".join(lines)


def _holds_chance(row: Mapping[str, Any]) -> bool:
    low, chance, high = (row.get(name) for name in ("low", "chance", "high"))
    return low is not None and chance is not None and high is not None and low <= chance <= high


def _loss(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _results(scores: Mapping[str, Any]) -> list[str]:
    table = scores.get("table") or []
    if not table:
        return ["No benchmark was run.", ""]
    confidence = scores.get("confidence")
    note = f" ({_percent(confidence)} % confidence)" if confidence is not None else ""
    lines = [f"{_PERCENT_NOTE}{note}; `near chance` where the interval holds the score of guessing.", ""]
    lines += _table(
        ("model", "task", "prompt", "method", "questions", "accuracy", "chance", "unparsed", ""),
        (
            (
                r["model"],
                r.get("title") or r["task"],
                r.get("prompt", ""),
                r.get("method", ""),
                r["n"],
                _interval(r),
                _percent(r["chance"]) if r.get("chance") is not None else "",
                _percent(r["unparsed"]) if r.get("unparsed") else "",
                "near chance" if _holds_chance(r) else "",
            )
            for r in table
        ),
    )
    differences = scores.get("differences") or []
    if differences:
        lines += ["Paired differences, in percentage points:", ""]
        lines += _table(
            ("from", "to", "on", "difference", "p"),
            (
                (
                    d["a"],
                    d["b"],
                    d.get("what", ""),
                    f"{100 * d['difference']:+.1f} {_between(d, '+.1f', 100)}",
                    f"{d['p']:.2g}" if d.get("p") is not None else "",
                )
                for d in differences
            ),
        )
    return lines


def _bits_per_byte(scores: Mapping[str, Any]) -> list[str]:
    rows = scores.get("bits_per_byte") or []
    if not rows:
        return []
    lines = ["Bits per UTF-8 byte of held-out text; lower is better:", ""]
    return lines + _table(
        ("model", "corpus", "source", "language", "documents", "bits per byte"),
        (
            (
                r["model"],
                r.get("corpus", ""),
                r.get("source", ""),
                r.get("language", ""),
                r.get("documents", ""),
                f"{r['bits_per_byte']:.3f} {_between(r, '.3f')}",
            )
            for r in rows
        ),
    )

"""The score table to paste: Markdown and LaTeX."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pandallm.report.run import interval_includes_chance
from pandallm.report.text import asked_how, count, percent

COLUMNS = (
    "task",
    "group",
    "prompt",
    "method",
    "model",
    "accuracy",
    "interval",
    "n",
    "clusters",
    "chance",
    "best constant",
    "unparsed",
    "note",
)
_NUMBERS = 5  # from this column on cells are numbers

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def markdown_table(scores: Mapping[str, Any]) -> str:
    """The rows of `scores["table"]` as a Markdown table; names are escaped so that they cannot become markup."""
    lines = [_pipes(list(COLUMNS)), _pipes(["---"] * _NUMBERS + ["---:"] * (len(COLUMNS) - _NUMBERS - 1) + ["---"])]
    return "\n".join(lines + [_pipes(cells) for cells in _cells(scores, escape_markdown)]) + "\n"


def latex_table(scores: Mapping[str, Any]) -> str:
    """The rows of `scores["table"]` as a LaTeX `tabular` (package booktabs; XeLaTeX or LuaLaTeX for Chinese names)."""
    columns = "l" * _NUMBERS + "r" * (len(COLUMNS) - _NUMBERS - 1) + "l"
    rows = [" & ".join(cells) + r" \\" for cells in _cells(scores, escape_latex)]
    head = " & ".join(COLUMNS) + r" \\"
    return (
        "\n".join(
            [
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def _cells(scores: Mapping[str, Any], escape: Callable[[str], str]) -> list[list[str]]:
    rows = []
    for r in scores.get("table") or []:
        note = "interval includes chance" if interval_includes_chance(r) else ""
        cells = [
            r.get("task"),
            r.get("group"),
            asked_how(r),
            r.get("method"),
            r.get("model"),
            percent(r.get("accuracy")),
        ]
        cells += [f"{percent(r.get('low'))} to {percent(r.get('high'))}", count(r.get("n")), count(r.get("clusters"))]
        cells += [percent(r.get("chance")), percent(r.get("constant")), percent(r.get("unparsed")), note]
        rows.append([escape(" ".join(str(c if c is not None else "").split())) for c in cells])
    return rows


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escape_markdown(value: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", value)


def escape_latex(value: str) -> str:
    return "".join(_LATEX.get(c, c) for c in value).replace("–", "--")

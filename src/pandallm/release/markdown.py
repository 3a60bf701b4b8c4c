"""Tables and lines of Markdown in which nothing of a value acts."""

import re
from collections.abc import Iterable
from typing import Any


def text(value: Any) -> str:
    """A value inside a Markdown table or line: one line, with nothing that Markdown or HTML would act on."""
    return (
        re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", " ".join(str(value).split()))
        .replace("&", "&amp;")
        .replace("\\<", "&lt;")
    )


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(text(cell) for cell in row) + " |" for row in rows] + [""]

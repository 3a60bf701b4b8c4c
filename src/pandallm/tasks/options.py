"""Options that stand inside a text, and letters that stand inside an option."""

import re
from collections.abc import Sequence

from pandallm.tasks.types import LETTERS

#: "A．" "B." "C、" "D：" as exam papers print them; no letter before it ("DNA." is no label).
_LABEL = re.compile(r"(?<![A-Za-z\\])([A-G])\s{0,2}[．.、：:]")
#: The start of a numbered question on a line of its own: "12．" "3 、".
_NUMBER = re.compile(r"(?:^|\n)[ \t\u3000]*\d{1,2}\s{0,2}[．.、]")
_OWN = re.compile(r"\s*(?:[(（]\s*([A-J])\s*[)）]\s*[.．。、:：]?|([A-J])\s*[.．。、:：)）])\s*")


def split_options(text: str) -> tuple[str, list[str]] | None:
    """(question, options) of an exam question whose options A, B, C .. follow it in the same text.

    The last run of labels that begins with A and has at least three is taken, so letters in the question do no
    harm. None where there is no such run or where an option is empty (a picture that the text does not hold).
    """
    labels = list(_LABEL.finditer(text))
    for first in range(len(labels) - 1, -1, -1):
        if labels[first][1] != "A":
            continue
        run = [labels[first]]
        for label in labels[first + 1 :]:
            if label[1] == LETTERS[len(run)]:
                run.append(label)
        if len(run) < 3:
            continue
        ends = [m.start() for m in run[1:]] + [len(text)]
        options = [text[m.end() : end].strip() for m, end in zip(run, ends)]
        question = text[: run[0].start()].strip()
        return (question, options) if question and all(options) else None
    return None


def split_group(text: str, n: int) -> tuple[str, list[str]] | None:
    """(passage, texts of its `n` questions) of an exam text that asks several numbered questions; None if unclear."""
    starts = [m.start() for m in _NUMBER.finditer(text)]
    if len(starts) != n or n < 2 or not text[: starts[0]].strip():
        return None
    return text[: starts[0]].strip(), [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)])]


def own_letters(options: Sequence[str]) -> list[tuple[str, str]]:
    """(letter, rest) of each option that begins with its letter, as "(A)x", "B．x" or "(A) A. x"; ("", option) else."""
    found = []
    for option in options:
        letter, rest = "", option
        while (match := _OWN.match(rest)) and (not letter or letter == (match[1] or match[2])):
            letter, rest = match[1] or match[2], rest[match.end() :]
        found.append((letter, rest.strip()))
    return found

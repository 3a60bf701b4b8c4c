"""Clean steps: each takes an example's turns and returns them, perhaps changed, or the reason to drop the example."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pandallm.data.clean_spec import CleanStep, LanguageStep, LengthStep, NormalizeStep, RepetitionStep
from pandallm.data.types import Turn
from pandallm.errors import BadInput

_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Turns = tuple[Turn, ...]

# Control characters except tab and line feed; byte order mark and zero-width space, which carry no text.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u200b]")
_LINE_ENDS = re.compile("\r\n|\r|\u2028|\u2029|\x85")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_LETTERS = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"),
    "en": re.compile("[A-Za-z]+"),
}


def normalize(text: str) -> str:
    """NFC, line ends unified, control characters out, more than one blank line cut to one. Punctuation stays."""
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROLS.sub("", text)
    return unicodedata.normalize("NFC", _BLANK_LINES.sub("\n\n", text))


def _drop_length(text: str, step: LengthStep) -> str | None:
    if len(text) < step.min_chars:
        return "too_short"
    return "too_long" if step.max_chars is not None and len(text) > step.max_chars else None


def _characters(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


def _drop_language(text: str, step: LanguageStep) -> str | None:
    letters = _characters(_LETTERS, text)
    if letters and any(_characters(_SCRIPTS[name], text) >= step.min_share * letters for name in step.keep):
        return None
    return "language"


def _most_repeats(text: str) -> int:
    """How often the most frequent 5-gram stands in a text of 5 or more characters, overlaps counted; quick."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = points[:-4]
    for k in range(1, 5):
        hashes = hashes * _FACTOR + points[k : len(points) - 4 + k]
    hashes.sort()
    ends = np.flatnonzero(np.concatenate([hashes[1:] != hashes[:-1], [True]]))
    return int(np.diff(ends, prepend=-1).max())


def _drop_repetition(text: str, step: RepetitionStep) -> str | None:
    """Share of the text inside its most frequent 5-gram, overlaps not counted twice (Gopher, arXiv 2112.11446, A.1.1).

    A 5-gram that stands there less than three times is no repetition, however short the text.
    """
    if len(text) < 5 or (most := _most_repeats(text)) < 3 or 5 * most <= step.max_share * len(text):
        return None
    count = text.count(Counter(text[i : i + 5] for i in range(len(text) - 4)).most_common(1)[0][0])
    return "repetition" if count >= 3 and 5 * count > step.max_share * len(text) else None


def check_steps(steps: Sequence[CleanStep], where: str) -> None:
    """Raise BadInput naming `where` for a language that the language step cannot tell."""
    for step in steps:
        if isinstance(step, LanguageStep):
            for name in step.keep:
                if name not in _SCRIPTS:
                    raise BadInput(f"{where}: language {name!r} is unknown; choose among {', '.join(_SCRIPTS)}.")


def run_steps(turns: Turns, steps: Sequence[CleanStep]) -> tuple[Turns, str | None]:
    """The turns after all steps, and the ledger's reason where a step drops the example (None: kept).

    Length, language and repetition look at all turns together. An example left without trained text is `empty`.
    """
    for step in steps:
        if isinstance(step, NormalizeStep):
            turns = tuple(replace(t, text=normalize(t.text)) for t in turns)
            reason = None
        else:
            text = "".join(t.text for t in turns)
            if isinstance(step, LengthStep):
                reason = _drop_length(text, step)
            elif isinstance(step, LanguageStep):
                reason = _drop_language(text, step)
            else:
                reason = _drop_repetition(text, step)
        if reason is not None:
            return turns, reason
    return turns, None if any(t.train and t.text.strip() for t in turns) else "empty"

"""Which language a text is in: by script."""

import re

from pandallm.data.clean_spec import LanguageStep
from pandallm.data.steps.document import Document, Step
from pandallm.errors import BadInput

_LETTERS = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"),
    "en": re.compile("[A-Za-z]+"),
}


def _characters(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


def check_language(step: LanguageStep, where: str) -> None:
    """Raise BadInput naming `where` for a language that the step cannot tell."""
    for name in step.keep:
        if name not in _SCRIPTS:
            raise BadInput(f"{where}: language {name!r} is unknown; choose among {', '.join(_SCRIPTS)}.")


def make_language(step: LanguageStep, where: str) -> Step:
    """Drops as `language` what is in none of the wanted languages."""
    check_language(step, where)

    def run(document: Document) -> str | None:
        text = document.text
        letters = _characters(_LETTERS, text)
        if letters and any(_characters(_SCRIPTS[name], text) >= step.min_share * letters for name in step.keep):
            return None
        return "language"

    return run

"""Normalisation: NFC, line ends, control characters, blank lines."""

import re
import unicodedata

from pandallm.data.clean_spec import NormalizeStep
from pandallm.data.steps.document import Document, Step

# Control characters except tab and line feed; byte order mark and zero-width space, which carry no text.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u200b]")
_LINE_ENDS = re.compile("\r\n|\r|\u2028|\u2029|\x85")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


def normalize(text: str) -> str:
    """NFC, line ends unified, control characters out, more than one blank line cut to one. Punctuation stays."""
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROLS.sub("", text)
    return unicodedata.normalize("NFC", _BLANK_LINES.sub("\n\n", text))


def make_normalize(step: NormalizeStep, where: str) -> Step:
    """The step that normalises each turn."""

    def run(document: Document) -> str | None:
        document.change(normalize)
        return None

    return run

"""Normalisation: NFC, line ends, control characters, blank lines, and traditional characters where that is asked."""

import re
import unicodedata
from collections.abc import Callable

from pandallm.data.clean_spec import NormalizeStep
from pandallm.data.steps.document import Document, Step
from pandallm.data.steps.libraries import load_library

# Control characters except tab and line feed; byte order mark and zero-width space, which carry no text.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u200b]")
_LINE_ENDS = re.compile("\r\n|\r|\u2028|\u2029|\x85")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


def normalize(text: str) -> str:
    """NFC, line ends unified, control characters out, more than one blank line cut to one. Punctuation stays."""
    # Python asks whether characters are printable at a third of the time of a search; line ends other than the plain
    # one and control characters are not. Most texts hold none.
    if not text.replace("\n", "").replace("\u3000", "").isprintable():
        text = _LINE_ENDS.sub("\n", text)
        text = _CONTROLS.sub("", text)
    if "\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return unicodedata.normalize("NFC", text)


def _simplifier(where: str) -> Callable[[str], str]:
    converter = load_library("opencc", f"{where}: traditional: to_simplified").OpenCC("t2s")
    return lambda text: str(converter.convert(normalize(text)))


def make_normalize(step: NormalizeStep, where: str) -> Step:
    """The step that normalises each turn."""
    function = _simplifier(where) if step.traditional == "to_simplified" else normalize

    def run(document: Document) -> str | None:
        document.change(function)
        return None

    return run

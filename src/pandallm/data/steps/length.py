"""Length of the whole text."""

from pandallm.data.clean_spec import LengthStep
from pandallm.data.steps.document import Document, Step


def make_length(step: LengthStep, where: str) -> Step:
    """Drops as `too_short` or `too_long`."""

    def run(document: Document) -> str | None:
        size = len(document.text)
        if size < step.min_chars:
            return "too_short"
        if step.max_chars is not None and size > step.max_chars:
            return "too_long"
        if step.min_words is not None and document.shape.words < step.min_words:
            return "too_short"
        return "too_long" if step.max_words is not None and document.shape.words > step.max_words else None

    return run

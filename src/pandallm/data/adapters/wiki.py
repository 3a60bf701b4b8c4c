"""wiki2019zh: id, url, title, text."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, plain_text, text_field


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Title, blank line, text, all trained; the title only where the text does not begin with it (the originals do)."""
    title, text = text_field(record, "title").strip(), text_field(record, "text").strip()
    if title and text and not text.startswith(title):
        text = f"{title}\n\n{text}"
    return plain_text(text)


ADAPTER = Adapter("wiki", ("id", "url", "title", "text"), adapt)

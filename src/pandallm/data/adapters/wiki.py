"""wiki2019zh: id, url, title, text."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, text_field, titled_text


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Title, blank line, text, all trained; the title only where the text does not begin with it (the originals do)."""
    return titled_text(text_field(record, "title"), text_field(record, "text"))


ADAPTER = Adapter("wiki", ("id", "url", "title", "text"), adapt)

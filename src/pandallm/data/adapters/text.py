"""Plain documents: one field holds the text."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, plain_text, text_field


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """The field named by option `field` (default `text`), trained."""
    return plain_text(text_field(record, options.get("field", "text")))


ADAPTER = Adapter("text", ("text",), adapt, {"field": ()})

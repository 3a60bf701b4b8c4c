"""CLUECorpus: plain text, a sentence or paragraph a line, documents separated by blank lines."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, plain_text, text_field


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """The whole document, trained. JSON lines with a `text` are read as well."""
    return plain_text(text_field(record, "text"))


ADAPTER = Adapter("clue", ("text",), adapt, blocks=True)

"""WuDaoCorpora text: id, uniqueKey, titleUkey, dataType, title, content."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, text_field, titled_text


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Title, blank line, content, all trained; the title only where the content does not begin with it."""
    return titled_text(text_field(record, "title"), text_field(record, "content"))


ADAPTER = Adapter("wudao", ("id", "uniqueKey", "titleUkey", "dataType", "title", "content"), adapt)

"""news2016zh: news_id, keywords, desc, title, source, time, content."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, lines, plain_text, text_field


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Title, content, all trained. `desc` mostly repeats the first sentences: only with option `desc: use`."""
    content = text_field(record, "content")
    desc = text_field(record, "desc") if options.get("desc") == "use" else ""
    return plain_text(lines(text_field(record, "title"), desc, content))


ADAPTER = Adapter(
    "news", ("news_id", "keywords", "desc", "title", "source", "time", "content"), adapt, {"desc": ("skip", "use")}
)

"""Public record schemas -> turns: one small file each, and the registry of them."""

from collections.abc import Mapping

from pandallm.data.adapters import (
    alpaca,
    baike_qa,
    coig,
    conversations,
    exam,
    news,
    text,
    translation,
    webtext_qa,
    wiki,
)
from pandallm.data.adapters.base import Adapted, Adapter, RecordError, Skip
from pandallm.errors import BadInput

ADAPTERS: Mapping[str, Adapter] = {
    module.ADAPTER.name: module.ADAPTER
    for module in (text, wiki, news, baike_qa, webtext_qa, translation, alpaca, exam, coig, conversations)
}


def get_adapter(name: str, options: Mapping[str, str], where: str) -> Adapter:
    """The adapter of this name. Raises BadInput naming `where` (a source) for an unknown name, option or value."""
    if name not in ADAPTERS:
        raise BadInput(f"{where}.adapter: {name!r} is unknown; known are {', '.join(sorted(ADAPTERS))}.")
    adapter = ADAPTERS[name]
    for option, value in options.items():
        if option not in adapter.options:
            known = f"it knows {', '.join(sorted(adapter.options))}" if adapter.options else "it has none"
            raise BadInput(f"{where}.options: adapter {name} has no option {option!r}; {known}.")
        allowed = adapter.options[option]
        if allowed and value not in allowed:
            raise BadInput(f"{where}.options.{option}: {value!r} is unknown; choose one of {', '.join(allowed)}.")
    return adapter


__all__ = ["ADAPTERS", "Adapted", "Adapter", "RecordError", "Skip", "get_adapter"]

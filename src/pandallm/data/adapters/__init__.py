"""Public record schemas -> turns: one small file each, and the registry of them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from pandallm.data.adapters import (
    alpaca,
    baike_qa,
    belle,
    clue,
    coig,
    conversations,
    exam,
    firefly,
    flan,
    messages,
    moss,
    news,
    sharegpt,
    text,
    translation,
    webtext_qa,
    wiki,
    wudao,
)
from pandallm.data.adapters.base import Adapted, Adapter, RecordError, Skip
from pandallm.data.adapters.templates import load_templates, templates_digest
from pandallm.data.spec import TemplatesSpec
from pandallm.errors import BadInput

_MODULES = (
    *(text, wiki, news, wudao, clue),
    *(baike_qa, webtext_qa, translation),
    *(alpaca, belle, firefly, flan, coig, exam),
    *(conversations, messages, moss, sharegpt),
)

ADAPTERS: Mapping[str, Adapter] = {module.ADAPTER.name: module.ADAPTER for module in _MODULES}


def get_adapter(name: str, options: Mapping[str, str], where: str, templates: TemplatesSpec | None = None) -> Adapter:
    """The adapter of this name, with the source's own instruction templates where it has some.

    Raises BadInput naming `where` (a source) for an unknown name, option or value, for templates that the adapter does not
    take, and for those that `load_templates` refuses.
    """
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
    if templates is None:
        return adapter
    if not adapter.placeholders:
        takers = ", ".join(sorted(n for n, a in ADAPTERS.items() if a.placeholders))
        raise BadInput(f"{where}.templates: adapter {name} takes no templates; those that do are {takers}.")
    loaded = load_templates(templates, adapter.placeholders, f"{where}.templates")
    return replace(adapter, adapt=partial(adapter.adapt, templates=loaded))


__all__ = ["ADAPTERS", "Adapted", "Adapter", "RecordError", "Skip", "get_adapter", "templates_digest"]

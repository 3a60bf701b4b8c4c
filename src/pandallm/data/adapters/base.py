"""What adapters are made of: reading fields, drawing templates, the Adapter description."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pandallm.data.types import Turn

Options = Mapping[str, str]


class RecordError(Exception):
    """A record does not follow its schema; the text names the field. Such records go to quarantine."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The record is well formed but holds nothing to train on; `reason` is a ledger line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Adapted:
    """Turns of one example; `language` where the record itself decides it (the trained side of a translation)."""

    turns: tuple[Turn, ...]
    language: str | None = None


@dataclass(frozen=True)
class Adapter:
    """One public record schema.

    `fields`: keys of the published schema. `options`: name -> allowed values (empty: any). `adapt` raises RecordError.
    """

    name: str
    fields: tuple[str, ...]
    adapt: Callable[[Mapping[str, Any], Options], Adapted | Skip]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def text_field(record: Mapping[str, Any], name: str) -> str:
    """The text of a field that must be there. Raises RecordError naming it."""
    if name not in record:
        raise RecordError(f"field `{name}` is missing (fields: {', '.join(sorted(map(str, record))) or 'none'})")
    value = record[name]
    if not isinstance(value, str):
        raise RecordError(f"field `{name}` is not text but {type(value).__name__}")
    return value


def optional_field(record: Mapping[str, Any], name: str) -> str:
    """The text of a field that may be absent or null: then empty."""
    return "" if record.get(name) is None else text_field(record, name)


def draw(choices: Sequence[str], key: str) -> str:
    """One of `choices` by sha256 of `key`.

    The key is the content that makes the example, not the record's own number, so that copies of one text under
    several numbers stay copies and dedup finds them.
    """
    return choices[
        int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") % len(choices)
    ]


def lines(*parts: str) -> str:
    """The parts that are not blank, stripped, one below the other."""
    return "\n".join(p.strip() for p in parts if p.strip())


def question_answer(prompt: str, answer: str, language: str | None = None) -> Adapted | Skip:
    """An untrained prompt that ends with a line break (the separator), then the trained answer."""
    if not prompt.strip():
        return Skip("no_question")
    if not answer.strip():
        return Skip("no_answer")
    return Adapted((Turn(prompt.rstrip() + "\n", False), Turn(answer.strip(), True)), language)


def plain_text(text: str) -> Adapted | Skip:
    """One trained turn."""
    return Adapted((Turn(text.strip(), True),)) if text.strip() else Skip("empty")

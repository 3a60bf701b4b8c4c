"""What adapters are made of: reading fields, drawing templates, the Adapter description."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pandallm.data.types import Turn

Options = Mapping[str, str]


class RecordError(Exception):
    """A record does not follow its schema; the text names the field. Such records go to quarantine."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The record is well formed but holds nothing to train on; `reason` is a ledger line."""

    reason: str


class Adapted(NamedTuple):
    """Turns of one example; `language` where the record itself decides it (the trained side of a translation)."""

    turns: tuple[Turn, ...]
    language: str | None = None


@dataclass(frozen=True)
class Adapter:
    """One public record schema.

    `fields`: keys of the published schema. `options`: name -> allowed values (empty: any). `adapt` raises RecordError.
    `placeholders`: what the source's own instruction templates may hold; none where the adapter takes no templates.
    `blocks`: documents in `.txt` files are separated by blank lines instead of being one a line.
    """

    name: str
    fields: tuple[str, ...]
    adapt: Callable[..., Adapted | Skip]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()
    blocks: bool = False


def missing(record: Mapping[str, Any], *names: str) -> RecordError:
    """The error for a record that has none of these fields."""
    has = ", ".join(sorted(map(str, record))) or "none"
    if len(names) == 1:
        return RecordError(f"field `{names[0]}` is missing (fields: {has})")
    return RecordError(f"none of {', '.join(f'`{n}`' for n in names)} is there (fields: {has})")


def text_field(record: Mapping[str, Any], name: str) -> str:
    """The text of a field that must be there. Raises RecordError naming it."""
    if name not in record:
        raise missing(record, name)
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
    text = text.strip()
    return Adapted((Turn(text, True),)) if text else Skip("empty")


def titled_text(title: str, text: str) -> Adapted | Skip:
    """Title, blank line, text, trained; the title only where the text does not begin with it."""
    title, text = title.strip(), text.strip()
    return plain_text(f"{title}\n\n{text}" if title and text and not text.startswith(title) else text)


def dialogue(messages: Iterable[tuple[bool | None, str]]) -> Adapted | Skip:
    """(trained, text) of each message -> turns, kept as one example. None instead of a truth value: a system message.

    What is asked is untrained and ends with a line break. Neighbours of the same kind become one turn, but a system message before
    the first question stays one of its own, which chat templates write apart; a later one joins what is asked. What follows the
    last answer is left out: nothing is learnt from it.
    """
    merged: list[tuple[bool | None, str]] = []
    for kind, text in messages:
        text = text.strip()
        if not text:
            continue
        if kind is None and merged and merged[-1][0] is not None:
            kind = False
        if merged and merged[-1][0] == kind:
            merged[-1] = (kind, f"{merged[-1][1]}\n{text}")
        else:
            merged.append((kind, text))
    while merged and not merged[-1][0]:
        merged.pop()
    if not merged:
        return Skip("no_answer")
    if merged[0][0]:
        return Skip("no_question")
    return Adapted(tuple(Turn(text if kind else text + "\n", bool(kind)) for kind, text in merged))


def objects(value: Any, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, element) of a list of objects. Raises RecordError naming the field."""
    if not isinstance(value, list):
        raise RecordError(f"field `{name}` is not a list but {type(value).__name__}")
    for number, element in enumerate(value, 1):
        if not isinstance(element, dict):
            raise RecordError(f"element {number} of `{name}` is not an object but {type(element).__name__}")
        yield number, element

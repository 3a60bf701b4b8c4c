"""Multi-turn chat: conversations [{from, value}] (also {role, content}, and COIG's pairs {question, answer})."""

from collections.abc import Iterator, Mapping
from typing import Any

from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    RecordError,
    Skip,
    lines,
    optional_field,
    text_field,
)
from pandallm.data.types import Turn

PROMPTING = ("human", "user", "system")
ANSWERING = ("gpt", "assistant", "bot", "chatgpt")


def _messages(messages: Any) -> Iterator[tuple[bool, str]]:
    """(trained, text) of each message."""
    if not isinstance(messages, list):
        raise RecordError(f"field `conversations` is not a list but {type(messages).__name__}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise RecordError(f"message {number} of `conversations` is not an object but {type(message).__name__}")
        if "question" in message:
            yield False, text_field(message, "question")
            yield True, text_field(message, "answer")
            continue
        role_field, text_name = ("role", "content") if "role" in message else ("from", "value")
        role = text_field(message, role_field).lower()
        if role not in PROMPTING + ANSWERING:
            raise RecordError(
                f"message {number} has `{role_field}` {role!r}; known: {', '.join(PROMPTING + ANSWERING)}"
            )
        yield role in ANSWERING, text_field(message, text_name)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Every turn in order, kept as one example: what is asked untrained and ending with a line break, answers trained.

    Neighbours of the same side become one turn. What follows the last answer is left out: nothing is learnt from it.
    """
    if "conversations" not in record:
        raise RecordError(f"field `conversations` is missing (fields: {', '.join(sorted(map(str, record))) or 'none'})")
    merged: list[tuple[bool, str]] = []
    opening = optional_field(record, "instruction")
    for train, text in [(False, opening), *_messages(record["conversations"])]:
        if not text.strip():
            continue
        if merged and merged[-1][0] == train:
            merged[-1] = (train, lines(merged[-1][1], text))
        else:
            merged.append((train, text.strip()))
    while merged and not merged[-1][0]:
        merged.pop()
    if not merged:
        return Skip("no_answer")
    if merged[0][0]:
        return Skip("no_question")
    return Adapted(tuple(Turn(text if train else text + "\n", train) for train, text in merged))


ADAPTER = Adapter("conversations", ("conversations",), adapt)

"""Multi-turn chat in the common forms: conversations [{from, value}], [{role, content}] or [{question, answer}]."""

from collections.abc import Iterator, Mapping
from typing import Any

from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    RecordError,
    Skip,
    dialogue,
    missing,
    objects,
    optional_field,
    text_field,
)

PROMPTING = ("human", "user", "system")
ANSWERING = ("gpt", "assistant", "bot", "chatgpt", "bing", "bard", "moss")


def messages(value: Any, name: str = "conversations") -> Iterator[tuple[bool | None, str]]:
    """(trained, text) of each message of a list in one of the common forms, None for the system's; `name` is the field's.

    Raises RecordError.
    """
    for number, message in objects(value, name):
        if "question" in message:
            yield False, text_field(message, "question")
            yield True, text_field(message, "answer")
            continue
        if "human" in message:
            yield False, text_field(message, "human")
            yield True, text_field(message, "assistant")
            continue
        role_field, text_name = ("role", "content") if "role" in message else ("from", "value")
        role = text_field(message, role_field).lower()
        if role not in PROMPTING + ANSWERING:
            raise RecordError(
                f"message {number} has `{role_field}` {role!r}; known: {', '.join(PROMPTING + ANSWERING)}"
            )
        yield None if role == "system" else role in ANSWERING, text_field(message, text_name)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """An `instruction` where there is one, then every turn in order; the answers are trained."""
    if "conversations" not in record:
        raise missing(record, "conversations")
    return dialogue([(False, optional_field(record, "instruction")), *messages(record["conversations"])])


ADAPTER = Adapter("conversations", ("conversations",), adapt)

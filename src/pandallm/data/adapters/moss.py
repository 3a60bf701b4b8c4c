"""MOSS: chat {turn_1: {Human, Inner Thoughts, Commands, Tool Responses, MOSS}} (moss-003), plain_text (moss-002)."""

import re
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
    optional_field,
    text_field,
)
from pandallm.data.adapters.conversations import messages

#: `<|Human|>: ` (moss-003) or `[Human]: ` (moss-002) opens a message, `<eoh>` and its like close it.
_OPEN = re.compile(r"(?:<\||\[)(Human|MOSS|Inner Thoughts|Commands|Results)(?:\|>|\]):[ \t]*")
_CLOSE = re.compile(r"<eo[hmatcr]>")
_NO_COMMAND = ("", "none")


def _marked(text: str) -> Iterator[tuple[str, str]]:
    """(speaker, text) of each marked message of a text."""
    _, *parts = _OPEN.split(text)
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        yield speaker, _CLOSE.split(said)[0].strip()


def _turn(value: Any, name: str) -> tuple[str, str, bool]:
    """(question, answer, whether a tool was called) of a turn of `chat`."""
    if not isinstance(value, dict):
        raise RecordError(f"turn `{name}` of `chat` is not an object but {type(value).__name__}")
    said = {}
    for key in ("Human", "MOSS", "Commands"):
        if key in value or key != "Commands":
            text = text_field(value, key).strip()
            opened = _OPEN.match(text)
            said[key] = _CLOSE.split(text[opened.end() :] if opened else text)[0].strip()
    return said["Human"], said["MOSS"], said.get("Commands", "").lower() not in _NO_COMMAND


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """The turns without MOSS's marks, its answers trained, inner thoughts left out.

    Conversations that call tools are skipped with reason `tools`: their answers rest on results that are not shown. Option
    `tools: keep` trains on them all the same. `meta_instruction`, the same in every record, is left out unless `meta: use`.
    """
    turns: list[tuple[bool | None, str]] = []
    if options.get("meta") == "use":
        turns.append((None, optional_field(record, "meta_instruction")))
    used_tools = False
    if "chat" in record:
        chat = record["chat"]
        if not isinstance(chat, dict):
            raise RecordError(f"field `chat` is not an object but {type(chat).__name__}")
        for name in sorted(chat, key=_number):
            question, answer, tool = _turn(chat[name], name)
            used_tools |= tool
            turns += [(False, question), (True, answer)]
    elif "plain_text" in record:
        for speaker, said in _marked(text_field(record, "plain_text")):
            used_tools |= speaker == "Commands" and said.lower() not in _NO_COMMAND
            if speaker in ("Human", "MOSS"):
                turns.append((speaker == "MOSS", said))
        if not any(train for train, _ in turns):
            raise RecordError("field `plain_text` holds no message that begins with `[MOSS]:` or `<|MOSS|>:`")
    else:
        name = "conversation" if "conversation" in record else "conversations"
        if name not in record:
            raise missing(record, "chat", "plain_text", "conversation", "conversations")
        turns += messages(record[name], name)
    if used_tools and options.get("tools") != "keep":
        return Skip("tools")
    return dialogue(turns)


def _number(name: str) -> int:
    found = re.fullmatch(r"turn_(\d+)", name)
    if not found:
        raise RecordError(f"field `chat` has {name!r}; turns are named turn_1, turn_2 and so on")
    return int(found[1])


ADAPTER = Adapter(
    "moss",
    ("conversation_id", "meta_instruction", "num_turns", "chat", "category"),
    adapt,
    {"tools": ("skip", "keep"), "meta": ("skip", "use")},
)

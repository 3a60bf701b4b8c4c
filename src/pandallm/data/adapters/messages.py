"""OpenAI's chat form: messages [{role, content}], with system messages, content parts and tools."""

from collections.abc import Iterator, Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, RecordError, Skip, dialogue, missing, objects

SYSTEM = ("system", "developer")
UNTRAINED = (*SYSTEM, "user")
TOOLS = ("tool", "function")


class _NotText(Exception):
    """A message holds an image, audio or a file."""


def _content(message: Mapping[str, Any], number: int) -> str:
    """The text of a message: a text, a list of parts, or null."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for _, part in objects(content, f"content of message {number}"):
        if part.get("type") not in ("text", "refusal"):
            raise _NotText
        text = part.get(str(part["type"]))
        if not isinstance(text, str):
            raise RecordError(f"message {number} has a part whose `{part['type']}` is not text")
        texts.append(text)
    return "".join(texts)


def _messages(value: Any) -> Iterator[tuple[bool | None, str]]:
    for number, message in objects(value, "messages"):
        role = message.get("role")
        if role not in (*UNTRAINED, *TOOLS, "assistant"):
            known = ", ".join((*UNTRAINED, "assistant", *TOOLS))
            raise RecordError(f"message {number} has `role` {role!r}; known: {known}")
        # An assistant's message with weight 0 is shown but not learnt, as OpenAI's fine-tuning does.
        trained = role == "assistant" and message.get("weight") != 0
        yield None if role in SYSTEM else trained, _content(message, number)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Every message in order, the assistant's trained (not those of `weight` 0), system messages before the first question.

    Conversations that call tools are skipped with reason `tools`, unless option `tools: text` takes what their messages say
    and leaves the calls and results out. Conversations with images, audio or files are skipped with reason `not_text`.
    """
    if "messages" not in record:
        raise missing(record, "messages")
    kept = []
    for number, message in objects(record["messages"], "messages"):
        if message.get("role") in TOOLS or message.get("tool_calls") or message.get("function_call"):
            if options.get("tools") != "text":
                return Skip("tools")
            if message.get("role") in TOOLS:
                continue
        if message.get("content") is None and not (message.get("tool_calls") or message.get("function_call")):
            raise RecordError(f"message {number} has no `content`")
        kept.append(message)
    try:
        return dialogue(_messages(kept))
    except _NotText:
        return Skip("not_text")


ADAPTER = Adapter("messages", ("messages",), adapt, {"tools": ("skip", "text")})

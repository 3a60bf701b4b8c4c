"""BAAI/COIG: the record shapes of its five subsets, told apart by their keys."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pandallm.data.adapters import alpaca, conversations, exam
from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    RecordError,
    Skip,
    dialogue,
    missing,
    text_field,
)

_ROUND = re.compile(r"round_(\d+)")
_FENCE = re.compile(r"^```\w*\s*|\s*```$")


def _rounds(record: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """(trained, text) of counterfactual correction chats: round_0, round_1, .. each with a `response` {"Q", "A"} as JSON text."""
    numbered = sorted((int(m[1]), name) for name in record if (m := _ROUND.fullmatch(name)))
    for _, name in numbered:
        value = record[name]
        if not isinstance(value, dict):
            raise RecordError(f"field `{name}` is not an object but {type(value).__name__}")
        response = value.get("response")
        if isinstance(response, str):
            try:
                response = json.loads(_FENCE.sub("", response.strip()))
            except ValueError:
                raise RecordError(f"field `response` of `{name}` is not JSON with `Q` and `A`") from None
        if not isinstance(response, dict):
            raise RecordError(f"field `response` of `{name}` is not an object with `Q` and `A`")
        yield False, text_field(response, "Q")
        yield True, text_field(response, "A")


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Exam and the second part of human value alignment (textbox_ keys); counterfactual correction chat, its rounds kept as
    turns; translated instructions (trans_ keys); leetcode and the first part of human value alignment (instruction, output).

    Of translated instructions the Chinese side is taken; option `language: en` or `both` as in adapter alpaca.
    """
    if "textbox_question" in record:
        return exam.adapt(record, options)
    if "conversations" in record:
        return conversations.adapt(record, options)
    if "trans_instruction" in record:
        return alpaca.adapt(record, {"language": options.get("language", "zh")})
    if "instruction" in record:
        return alpaca.instruction_answer(record)
    if any(map(_ROUND.fullmatch, record)):
        return dialogue(_rounds(record))
    raise missing(record, "textbox_question", "conversations", "trans_instruction", "instruction", "round_0")


ADAPTER = Adapter(
    "coig",
    (
        *exam.ADAPTER.fields,
        "conversations",
        "round_0",
        "instruction",
        "input",
        "output",
        "trans_instruction",
        "trans_input",
        "trans_output",
    ),
    adapt,
    {"language": ("zh", "en", "both")},
)

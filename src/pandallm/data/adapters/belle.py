"""BELLE: instruction, input, output; multi-turn inside `instruction`, or as conversations [{from, value}]."""

import re
from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters import conversations
from pandallm.data.adapters.alpaca import instruction_answer
from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, dialogue, text_field
from pandallm.data.adapters.flan import input_target

_SPEAKER = re.compile(r"(?:^|\n)[ \t]*(Human|Assistant)[:：]")


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """The forms of BELLE's sets, told apart by their keys.

    train_*_CN and school_math: as alpaca. multiturn_chat: `instruction` is "Human:..\\nAssistant:..\\nHuman:..\\nAssistant:", the last
    answer is `output`; the turns are kept as turns, all answers trained. train_3.5M_CN: conversations. train_0.5M_CN's first
    release: input, target.
    """
    if "conversations" in record:
        return conversations.adapt(record, options)
    if "instruction" not in record and "target" in record:
        return input_target(record, "input", "target")
    instruction = text_field(record, "instruction") if "instruction" in record else ""
    if not re.match(r"\s*Human[:：]", instruction):
        return instruction_answer(record)
    _, *parts = _SPEAKER.split("\n" + instruction.strip())
    turns = [
        (speaker == "Assistant", text) for speaker, text in zip(parts[::2], parts[1::2], strict=True) if text.strip()
    ]
    return dialogue([*turns, (True, text_field(record, "output"))])


ADAPTER = Adapter("belle", ("instruction", "input", "output"), adapt)

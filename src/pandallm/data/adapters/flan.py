"""FLAN-style pairs: inputs, targets."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, question_answer, text_field


def input_target(record: Mapping[str, Any], prompt: str, answer: str) -> Adapted | Skip:
    """The field `prompt` untrained, the field `answer` trained."""
    return question_answer(text_field(record, prompt), text_field(record, answer))


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """`inputs` holds the whole prompt, few-shot examples included; `targets` is trained."""
    return input_target(record, "inputs", "targets")


ADAPTER = Adapter("flan", ("inputs", "targets"), adapt)

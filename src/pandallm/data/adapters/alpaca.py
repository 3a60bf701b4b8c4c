"""Alpaca and its relatives: instruction, input, output; the parallel form has them again as trans_*."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    Skip,
    draw,
    lines,
    optional_field,
    question_answer,
    text_field,
)


def instruction_answer(record: Mapping[str, Any], prefix: str = "", language: str | None = None) -> Adapted | Skip:
    """Instruction, line break, input, untrained; output trained."""
    output = text_field(record, prefix + "output")
    prompt = lines(text_field(record, prefix + "instruction"), optional_field(record, prefix + "input"))
    return question_answer(prompt, output, language)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Without options: instruction, input, output as they stand.

    Option `language`, for the parallel form: `en` takes the plain keys, `zh` the trans_ keys, `both` one of the two
    per record, by content hash (a record is one example, so that the ledger adds up).
    """
    language = options.get("language")
    if language is None:
        return instruction_answer(record)
    if language == "both":
        language = draw(("zh", "en"), text_field(record, "instruction") + text_field(record, "output"))
    return instruction_answer(record, "trans_" if language == "zh" else "", language)


ADAPTER = Adapter("alpaca", ("instruction", "input", "output"), adapt, {"language": ("zh", "en", "both")})

"""COIG exam: textbox_q_instruction, textbox_q_context, textbox_question, textbox_answer, textbox_answer_analysis."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    Skip,
    lines,
    optional_field,
    question_answer,
    text_field,
)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Instruction, context and question, one below the other, untrained; answer, blank line, analysis, trained.

    Where the record has only one of answer and analysis, that is the answer.
    """
    answer = text_field(record, "textbox_answer").strip()
    analysis = optional_field(record, "textbox_answer_analysis").strip()
    prompt = lines(
        optional_field(record, "textbox_q_instruction"),
        optional_field(record, "textbox_q_context"),
        text_field(record, "textbox_question"),
    )
    return question_answer(prompt, f"{answer}\n\n{analysis}" if answer and analysis else answer or analysis)


ADAPTER = Adapter(
    "exam",
    (
        "textbox_q_instruction",
        "textbox_q_context",
        "textbox_question",
        "textbox_answer",
        "textbox_answer_analysis",
    ),
    adapt,
)

"""BAAI/COIG: five record shapes in one collection, told apart by their keys."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters import conversations, exam
from pandallm.data.adapters.alpaca import instruction_answer
from pandallm.data.adapters.base import Adapted, Adapter, Options, RecordError, Skip


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Exam, counterfactual chat, translated instructions (trans_ keys), the rest (instruction, output)."""
    if "textbox_question" in record:
        return exam.adapt(record, options)
    if "conversations" in record:
        return conversations.adapt(record, options)
    if "trans_instruction" in record:
        return instruction_answer(record, "trans_", "zh")
    if "instruction" in record:
        return instruction_answer(record)
    raise RecordError(
        "none of `textbox_question`, `conversations`, `trans_instruction`, `instruction` is there "
        f"(fields: {', '.join(sorted(map(str, record))) or 'none'})"
    )


ADAPTER = Adapter(
    "coig",
    (
        *exam.ADAPTER.fields,
        "conversations",
        "instruction",
        "input",
        "output",
        "trans_instruction",
        "trans_input",
        "trans_output",
    ),
    adapt,
)

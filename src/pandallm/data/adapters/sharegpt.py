"""ShareGPT: id, conversations [{from, value}]; also the form conversation [{human, assistant}] of its Chinese collections."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, dialogue, missing
from pandallm.data.adapters.conversations import messages


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """Every turn in order, the model's trained.

    Shared conversations often begin in the middle: answers before the first question are left out.
    """
    name = "conversations" if "conversations" in record else "conversation"
    if name not in record:
        raise missing(record, "conversations", "conversation")
    turns = list(messages(record[name], name))
    while turns and (turns[0][0] or not turns[0][1].strip()):
        turns.pop(0)
    return dialogue(turns)


ADAPTER = Adapter("sharegpt", ("id", "conversations"), adapt)

"""Firefly (firefly-train-1.1M): kind, input, target."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip
from pandallm.data.adapters.flan import input_target


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """`input` holds the whole prompt; `target` is trained. `kind` names one of 23 tasks."""
    return input_target(record, "input", "target")


ADAPTER = Adapter("firefly", ("kind", "input", "target"), adapt)

"""Spec, the base of all settings: frozen, unknown fields refused with the nearest right name."""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def nearest(name: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or the known names where none is near; empty if there are none."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""


class Spec(BaseModel):
    """Base of every settings class. Each room keeps its own in its `spec.py`, which imports this and pydantic only."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in data:
                if key not in known and key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_field",
                        "unknown field '{field}'.{hint}",
                        {"field": str(key), "hint": nearest(str(key), sorted(known))},
                    )
        return data

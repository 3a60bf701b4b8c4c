"""Spec, the base of all settings: frozen, unknown fields refused."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of every settings class. Each room keeps its own in its `spec.py`, which imports this and pydantic only."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

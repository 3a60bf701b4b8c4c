"""Settings of the built-in synthetic world."""

from pydantic import Field

from pandallm.spec import Spec


class WorldSpec(Spec):
    """Sizes of the world. People are split into disjoint groups: what tunes the recipe is never what is reported."""

    split: str = "test"  # which people are scored: `dev` while tuning, `test` for what is reported
    english_people: int = Field(24, gt=0)
    question_people: int = Field(24, gt=0)
    instruction_people: int = Field(24, gt=0)
    scored_people: int = Field(48, gt=0)

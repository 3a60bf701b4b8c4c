"""Settings of a release."""

from typing import Literal

from pandallm.spec import Spec


class ReleaseSpec(Spec):
    """The delta of `target` against `base` (names of stages)."""

    base: str = "base"
    target: str = "instruct"
    weights: Literal["delta"] = "delta"

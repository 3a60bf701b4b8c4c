"""Settings of a release."""

from typing import Literal

from pandallm.spec import Spec


class ReleaseSpec(Spec):
    """What `panda release` publishes: `target`, whole or as its delta against `base` (names of stages). See docs/release.md."""

    base: str = "base"
    target: str = "instruct"
    ship: Literal["auto", "weights", "delta"] = "auto"  # auto: as the base's licence allows
    licence: str = ""  # of the base, such as apache-2.0; read from the base's own files when left out
    publish_as: str = ""  # licence of what is published; the base's when left out
    authors: tuple[str, ...] = ()  # for CITATION.cff

"""Settings of the clean steps."""

from typing import Annotated, Literal

from pydantic import Field

from pandallm.spec import Spec


class NormalizeStep(Spec):
    """Unicode NFC, control characters out, line ends unified, runs of blank lines cut. Chinese punctuation stays."""

    kind: Literal["normalize"] = "normalize"
    form: Literal["NFC"] = "NFC"


class LengthStep(Spec):
    """Drop examples whose turns together have fewer or more characters."""

    kind: Literal["length"] = "length"
    min_chars: int = 1
    max_chars: int | None = None


class LanguageStep(Spec):
    """Drop examples whose script is not wanted: `zh` needs Han, `en` Latin letters (min_share of all letters)."""

    kind: Literal["language"] = "language"
    keep: tuple[str, ...] = ("zh", "en")
    min_share: float = 0.3


class RepetitionStep(Spec):
    """Drop examples of which one character 5-gram makes up more than `max_share` (Gopher's rule on characters)."""

    kind: Literal["repetition"] = "repetition"
    max_share: float = 0.2


CleanStep = Annotated[NormalizeStep | LengthStep | LanguageStep | RepetitionStep, Field(discriminator="kind")]

"""What flows through the data room: turns and examples."""

from dataclasses import dataclass
from typing import NamedTuple


class Turn(NamedTuple):
    """A stretch of text. `train`: whether the loss is taken on it.

    Turns are joined by nothing: a turn that must be set apart from the next one carries its own separator
    (prompts made by our adapters end with a line break).
    """

    text: str
    train: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One document, question with answer, or conversation. A plain text is one trained turn."""

    id: str
    source: str
    language: str
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """All turns, one after the other."""
        return "".join(t.text for t in self.turns)

    @property
    def utf8_bytes(self) -> int:
        """UTF-8 bytes of `text`."""
        return len(self.text.encode())

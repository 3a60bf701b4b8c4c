"""What goes through the clean steps, and what comes out of them."""

from collections.abc import Callable
from typing import NamedTuple

from pandallm.data.steps.words import Shape, lines_of
from pandallm.data.types import Turn

Turns = tuple[Turn, ...]


class Cleaned(NamedTuple):
    """An example after all steps.

    reason: why a step drops it, as the ledger names it; None where it is kept. language: as given, or as a step found
    it. quality: in [0, 1], None where no scorer ran. masked: how many stretches of personal data of each kind were
    masked, None where none.
    """

    turns: Turns
    reason: str | None
    language: str | None
    quality: float | None
    masked: dict[str, int] | None = None


class Document:
    """An example on its way through the steps. Filters look at `text`: all turns, one after the other."""

    __slots__ = ("_lines", "_shape", "_text", "_turns", "language", "masked", "quality")

    def __init__(self, turns: Turns, language: str | None) -> None:
        self._turns = turns
        self._text: str | None = None
        self._shape: Shape | None = None
        self._lines: list[str] | None = None
        self.language = language
        self.quality: float | None = None
        self.masked: dict[str, int] | None = None

    @property
    def turns(self) -> Turns:
        """The turns as the steps so far left them."""
        return self._turns

    @turns.setter
    def turns(self, turns: Turns) -> None:
        self._turns, self._text, self._shape, self._lines = turns, None, None, None

    @property
    def text(self) -> str:
        """All turns, one after the other; joined once."""
        if self._text is None:
            turns = self._turns
            self._text = turns[0].text if len(turns) == 1 else "".join([t.text for t in turns])
        return self._text

    @property
    def shape(self) -> Shape:
        """The text as arrays of characters and their classes; computed once."""
        if self._shape is None:
            self._shape = Shape(self.text)
        return self._shape

    @property
    def lines(self) -> list[str]:
        """The lines that hold something, without blanks round them; split once."""
        if self._lines is None:
            self._lines = lines_of(self.text)
        return self._lines

    @property
    def trained_text(self) -> str:
        """The turns that the loss is taken on, one after the other."""
        if all(t.train for t in self._turns):
            return self.text
        return "".join([t.text for t in self._turns if t.train])

    @property
    def trained_shape(self) -> Shape:
        """`trained_text` as arrays."""
        return self.shape if all(t.train for t in self._turns) else Shape(self.trained_text)

    def change(self, function: Callable[[str], str]) -> None:
        """Give every turn's text through `function`; which turns are trained stays."""
        turns = self._turns
        if len(turns) == 1:  # plain text, the most frequent case
            old = turns[0]
            if (new := function(old.text)) is not old.text and new != old.text:
                self.turns = (Turn(new, old.train),)
            return
        texts = [function(t.text) for t in turns]
        if any(new is not old.text and new != old.text for new, old in zip(texts, turns, strict=True)):
            self.turns = tuple(Turn(new, old.train) for new, old in zip(texts, turns, strict=True))


Step = Callable[[Document], str | None]
"""Looks at a document, may change it, and gives the reason to drop it or None."""

"""What answers questions: a local model, several devices, vLLM or a server; the evaluation does not care which."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Asked:
    """One question under one prompt, as text.

    `context` is the whole text before the answer (examples and chat template included); `continuations` are what is
    scored, one per option, delimiter included; `passage` is the span (start, end) in characters of `context` from which
    tokens may be cut where the model's window is too short. `messages` holds the same turns for chat servers, which
    apply their own template: set with `chat` only; the last one is the user's.
    """

    context: str
    continuations: tuple[str, ...]
    passage: tuple[int, int] = (0, 0)
    messages: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True)
class Scored:
    """Summed log-probability of each continuation in nats; `truncated`: tokens of the passage were cut."""

    scores: list[float]
    truncated: bool = False


@dataclass(frozen=True)
class Answered:
    """A completion; `truncated` as in `Scored`."""

    text: str
    truncated: bool = False


class Backend(Protocol):
    """Batches come in any order, each (index into `asked`, result); indices for which `done` holds may be left out."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a cached result depends on beside the text: weights, tokenizer, chat template, dtype, device kind."""

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool]
    ) -> Iterator[list[tuple[int, Scored]]]:
        """`groups[i]` is equal for consecutive questions about one passage. Raises BadInput where it cannot score."""

    def generate(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int,
        settled: Callable[[int, str], bool],
        done: Callable[[int], bool],
    ) -> Iterator[list[tuple[int, Answered]]]:
        """Greedy completions, ended early once `settled(index, text so far)`."""

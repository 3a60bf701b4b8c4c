"""Scores of options -> the choice, under each way of normalising."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Score of a continuation that holds no token (an empty option): never chosen, and JSON can hold it.
NO_TOKENS = -1e9
#: Two best scores closer than this (nats, after normalising) are a near tie: another batch or device may swap them.
NEAR_TIE = 1e-3


def normalised(
    scores: Sequence[float], options: Sequence[str], unconditional: Sequence[float] | None
) -> dict[str, list[float]]:
    """Score of each option by name: the sum, per character and per byte of the option's text (its delimiter not counted,
    as in lm-evaluation-harness), and the sum less that of the same option without passage and question.
    """
    out = {
        "sum": list(scores),
        "characters": [s / max(1, len(o)) for s, o in zip(scores, options)],
        "bytes": [s / max(1, len(o.encode())) for s, o in zip(scores, options)],
    }
    if unconditional is not None:
        # An option without a token (an empty text) must not win because it has none without the passage either.
        out["unconditional"] = [s - u if s > NO_TOKENS else s for s, u in zip(scores, unconditional)]
    return out


def best(scores: Sequence[float]) -> int:
    """Position of the highest score; the first wins ties."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def near_tie(scores: Sequence[float]) -> bool:
    """Whether the two highest scores are closer than `NEAR_TIE`."""
    first, second = sorted(scores, reverse=True)[:2]
    return first - second < NEAR_TIE


def decide(
    scores: Sequence[float],
    unconditional: Sequence[float] | None,
    options: Sequence[str] | None,
    normalize: str,
) -> Mapping[str, Any]:
    """The fields `choice`, `choices` and `near_tie` of a row; `options`: their texts, or None where letters are scored.

    All lists are in published order. `normalize` says which of the choices counts.
    """
    if options is None:
        return {"choice": best(scores), "choices": None, "near_tie": near_tie(scores)}
    ways = normalised(scores, options, unconditional)
    choices = {name: best(of) for name, of in ways.items()}
    return {"choice": choices[normalize], "choices": choices, "near_tie": near_tie(ways[normalize])}

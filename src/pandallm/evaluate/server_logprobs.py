"""Log-probabilities out of the replies of OpenAI-compatible servers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pandallm.errors import BadInput


@dataclass(frozen=True)
class Echo:
    """The prompt's tokens as the server read them (special ones included) and their log-probabilities in nats.

    The first has None. `offsets`: where each token begins in the text, as the server says. `hidden`: how many tokens
    the server counts before the first one it shows (a start token that it leaves out).
    """

    tokens: list[str]
    logprobs: list[float | None]
    offsets: list[int] | None
    hidden: int = 0


def read_echo(reply: Any, prompt: str) -> Echo | None:
    """The echoed prompt of a completion without its generated tokens; None where the reply does not hold it."""
    try:
        choice = reply["choices"][0]
        found = choice["logprobs"]
        tokens, logprobs = list(found["tokens"]), list(found["token_logprobs"])
    except (KeyError, IndexError, TypeError):
        return None
    usage = reply.get("usage") or {}
    generated = usage.get("completion_tokens")
    n = len(tokens) - (generated if isinstance(generated, int) else 1)
    # A server that ignores `echo` gives the generated token only.
    if len(tokens) != len(logprobs) or n <= 0 or not str(choice.get("text", "")).startswith(prompt):
        return None
    counted = usage.get("prompt_tokens")
    hidden = counted - n if isinstance(counted, int) else 0
    if hidden not in (0, 1):
        return None
    offsets = found.get("text_offset")
    if not isinstance(offsets, list) or len(offsets) < n:
        offsets = None
    return Echo([str(t) for t in tokens[:n]], logprobs[:n], None if offsets is None else offsets[:n], hidden)


def continuation_score(echo: Echo, text: str, start: int, count_context: Callable[[], int]) -> float:
    """Summed log-probability of the tokens of `text[start:]`.

    Where the server's tokens spell the text exactly (after special tokens), those that hold any of its characters: a
    token across the boundary counts. Otherwise (pieces of a character are shown as a replacement character, so offsets
    mean nothing) the tokens after as many as the context has by itself, which is lm-evaluation-harness's rule.
    Raises BadInput where one of them has no log-probability.
    """
    first = exact_start(echo, text, start)
    if first is None:
        first = max(count_context() - echo.hidden, 0) if start else 0
    values = echo.logprobs[first:]
    if any(v is None for v in values):
        raise BadInput(
            "The server gives no log-probability of a prompt's first token, and this prompt has no text before the "
            "options: use a prompt with text, or --methods generation."
        )
    return float(sum(v for v in values if v is not None))


def exact_start(echo: Echo, text: str, start: int) -> int | None:
    """Index of the first token that holds a character of `text[start:]`; None where tokens do not spell the text."""
    joined = "".join(echo.tokens)
    if not joined.endswith(text):
        return None
    shift = len(joined) - len(text)  # special tokens before the text
    ends, at = [], -shift
    for token in echo.tokens:
        at += len(token)
        ends.append(at)
    if echo.offsets is not None:
        begins = [-shift, *ends[:-1]]
        # Servers count from the text's or from the special token's beginning; the distances must agree.
        if len({said - own for said, own in zip(echo.offsets, begins) if own >= 0}) > 1:
            return None
    return next((i for i, end in enumerate(ends) if end > start), len(ends))


def read_generated(reply: Any) -> tuple[str, float] | None:
    """The first generated token and its log-probability, in either form of the API; None if absent."""
    try:
        found = reply["choices"][0]["logprobs"]
        if found.get("content"):
            return str(found["content"][0]["token"]), float(found["content"][0]["logprob"])
        return str(found["tokens"][0]), float(found["token_logprobs"][0])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None


def read_top(reply: Any) -> dict[str, float]:
    """Token -> log-probability of the most likely first tokens of an answer, in either form of the API; {} if absent."""
    try:
        found = reply["choices"][0]["logprobs"]
        if found.get("content"):  # chat, and newer llama.cpp
            return {str(t["token"]): float(t["logprob"]) for t in found["content"][0]["top_logprobs"]}
        return {str(t): float(v) for t, v in found["top_logprobs"][0].items()}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return {}


def letter_scores(top: Mapping[str, float], letters: Sequence[str]) -> list[float]:
    """Log-probability that the answer's first token is each letter, with or without space; [] if one is absent."""
    scores = []
    for letter in letters:
        found = [v for token, v in top.items() if token.strip() == letter]
        if not found:
            return []
        highest = max(found)
        scores.append(highest + math.log(sum(math.exp(v - highest) for v in found)))
    return scores

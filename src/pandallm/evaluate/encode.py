"""Text -> the tokens that are scored, by the rules of lm-evaluation-harness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """One option: `tokens` = context + continuation, `start` = index of the continuation's first token (>= 1)."""

    tokens: tuple[int, ...]
    start: int


@dataclass
class Encoded:
    """Requests of one question; `truncated` counts those that lost tokens on the left."""

    requests: list[Request]
    truncated: int


def encode_questions(tokenizer: Any, rendered: Sequence[tuple[str, Sequence[str]]], max_length: int) -> list[Encoded]:
    """Token requests of (context, continuations) pairs by the rules of lm-evaluation-harness 0.4.13.

    Trailing white space of the context moves to the continuation; with `whole` = enc(context + continuation) and
    `c` = enc(context), the continuation's tokens are `whole[len(c):]` and the model reads `c` + those; an empty context
    is BOS, or EOS without BOS; at most `max_length` + 1 tokens are kept, the last ones. Where a merge across the
    boundary leaves the continuation no token (the harness fails there), it is encoded by itself.
    """
    pairs: list[tuple[str, list[str]]] = []
    for context, continuations in rendered:
        kept = context.rstrip()
        pairs.append((kept, [context[len(kept) :] + c for c in continuations]))
    texts = [context + c for context, continuations in pairs for c in ("", *continuations)]
    encoded = iter(tokenizer(texts, add_special_tokens=True)["input_ids"] if texts else [])
    out = []
    for context, continuations in pairs:
        c = next(encoded)
        if not context:
            c = []
        requests, truncated = [], 0
        for continuation in continuations:
            k = next(encoded)[len(c) :] if context else tokenizer.encode(continuation, add_special_tokens=False)
            if not k and continuation.strip():
                k = tokenizer.encode(continuation, add_special_tokens=False)
            whole = tuple((c or [first_token(tokenizer)]) + k)
            tokens = whole[-(max_length + 1) :]
            truncated += len(whole) > len(tokens)
            requests.append(Request(tokens, max(1, len(tokens) - len(k))))
        out.append(Encoded(requests, truncated))
    return out


def first_token(tokenizer: Any) -> int:
    """What stands before an empty context: BOS, or EOS where the tokenizer has no BOS."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(token if token is not None else 0)

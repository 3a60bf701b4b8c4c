"""Text -> the tokens that are scored, by the rules of lm-evaluation-harness; passages are cut where a model is too short."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Asked


@dataclass(frozen=True)
class Request:
    """One option: `tokens` = context + continuation, `start` = index of the continuation's first token (>= 1)."""

    tokens: tuple[int, ...]
    start: int


@dataclass
class Encoded:
    """Requests of one question; `truncated` counts those that lost tokens."""

    requests: list[Request]
    truncated: int


def encode_questions(tokenizer: Any, rendered: Sequence[tuple[str, Sequence[str]]], max_length: int) -> list[Encoded]:
    """Token requests of (context, continuations) pairs by the rules of lm-evaluation-harness 0.4.13.

    Trailing white space of the context moves to the continuation; with `whole` = enc(context + continuation) and
    `c` = enc(context), the continuation's tokens are `whole[len(c):]` and the model reads `c` + those; an empty context
    is BOS, or EOS without BOS; at most `max_length` + 1 tokens are kept, the last ones; a text that begins with the
    start token's own text gets no second one. Where a merge across the boundary leaves the continuation no token (the
    harness fails there), it is encoded by itself.
    """
    pairs: list[tuple[str, list[str]]] = []
    for context, continuations in rendered:
        kept = context.rstrip()
        pairs.append((kept, [context[len(kept) :] + c for c in continuations]))
    texts = [context + c for context, continuations in pairs for c in ("", *continuations)]
    encoded = iter(tokenize(tokenizer, texts))
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


def encode_asked(tokenizer: Any, asked: Sequence[Asked], max_length: int) -> list[Encoded]:
    """`encode_questions` of `asked`; a prompt that is too long loses the middle of its passage, and nothing else.

    Raises BadInput where a prompt does not fit even without its passage.
    """
    out = encode_questions(tokenizer, [(a.context, a.continuations) for a in asked], max_length)
    for i, a in enumerate(asked):
        if out[i].truncated:
            found: dict[str, Encoded] = {}

            def fits(text: str, continuations: tuple[str, ...] = a.continuations, found: Any = found) -> bool:
                (found[text],) = encode_questions(tokenizer, [(text, continuations)], max_length)
                return not found[text].truncated

            text = shorten(a, fits, max_length)
            out[i] = Encoded(found[text].requests, len(a.continuations))
    return out


def encode_prompts(tokenizer: Any, asked: Sequence[Asked], max_tokens: int) -> list[tuple[list[int], bool]]:
    """(token ids, whether the passage was cut) of each prompt that is to be continued, at most `max_tokens` long.

    Raises BadInput where a prompt does not fit even without its passage.
    """
    out = []
    for a, ids in zip(asked, tokenize(tokenizer, [a.context for a in asked])):
        cut = len(ids) > max_tokens
        if cut:
            text = shorten(a, lambda text: len(tokenize(tokenizer, [text])[0]) <= max_tokens, max_tokens)
            (ids,) = tokenize(tokenizer, [text])
        out.append((ids or [first_token(tokenizer)], cut))
    return out


def shorten(asked: Asked, fits: Callable[[str], bool], limit: int) -> str:
    """The context with as much of its passage as fits, cut from the passage's middle (its two ends stay).

    `limit` is only told. Raises BadInput where the context does not fit without the passage, or has none to cut.
    """
    start, end = asked.passage

    def kept(characters: int) -> str:
        head = (characters + 1) // 2
        return asked.context[: start + head] + asked.context[end - (characters - head) :]

    low, high = 0, end - start
    if not high or not fits(kept(0)):
        without = "even without its passage" if high else "and it has no passage that may be cut"
        raise BadInput(
            f"A prompt is longer than the model's {limit} tokens, {without} (it ends {asked.context[-40:]!r}): "
            "use fewer shots, a shorter prompt, `on_long: cut`, or a model with a longer window."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(kept(middle)) else (low, middle)
    return kept(low)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids with the tokenizer's special tokens, except where the text already begins with the start token.

    So does lm-evaluation-harness: chat templates write the start token as text.
    """
    if not texts:
        return []
    begin = tokenizer.decode([first_token(tokenizer)])
    ids: list[list[int]] = list(tokenizer(list(texts), add_special_tokens=True)["input_ids"])
    for i, text in enumerate(texts):
        if begin and text.startswith(begin):
            ids[i] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def first_token(tokenizer: Any) -> int:
    """What stands before an empty context: BOS, or EOS where the tokenizer has no BOS."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(token if token is not None else 0)

"""Dialogues of a cleaned corpus -> tokens, as a chat template writes them."""

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pandallm.data.chat import ChatEncoder, Segment
from pandallm.data.tokenize import EXAMPLES, RUNS, TokenBatch, TokenizerFacts
from pandallm.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa


def messages_of(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Turns ({"text", "train"}) as messages: untrained ones are the user's, trained ones the assistant's; of two untrained turns at the
    beginning the first is the system's.

    The line break that sets a question apart from its answer is left out: the template has its own way.
    Raises BadInput where the turns are not questions with answers.
    """
    messages: list[dict[str, str]] = []
    system = len(turns) > 1 and not turns[0]["train"] and not turns[1]["train"]
    for i, turn in enumerate(turns):
        role = "assistant" if turn["train"] else "system" if i == 0 and system else "user"
        text = turn["text"] if turn["train"] else turn["text"].removesuffix("\n")
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += text if turn["train"] else "\n" + text
        else:
            messages.append({"role": role, "content": text})
    roles = [m["role"] for m in messages if m["role"] != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        raise BadInput("its turns do not alternate between what is asked and what is answered")
    return messages


def tokenize_dialogues(
    encoder: ChatEncoder, ids: Sequence[str], turns: "pa.ListArray", facts: TokenizerFacts
) -> TokenBatch:
    """Tokens of examples given as `list<struct<text, train>>`; those without an untrained turn, plain documents, as without a template.

    Raises BadInput, naming the example, for a dialogue that the template cannot write.
    """
    examples = turns.to_pylist()
    documents = [all(turn["train"] for turn in example) for example in examples]
    dialogues = [
        _segments(encoder, name, example)
        for name, example, document in zip(ids, examples, documents, strict=True)
        if not document
    ]
    encoded = zip(dialogues, encoder.encode_all(dialogues), strict=True)
    tokens, lengths, flags, counts = array("I"), list[int](), list[bool](), list[int]()
    for example, document in zip(examples, documents, strict=True):
        if document:
            stretches = _document(encoder, example, facts)
        else:
            segments, parts = next(encoded)
            stretches = [(part, s.trained) for part, s in zip(parts, segments, strict=True)]
        for stretch, _ in stretches:
            tokens.fromlist(stretch)
        lengths += [len(stretch) for stretch, _ in stretches]
        flags += [trained for _, trained in stretches]
        counts.append(len(stretches))
    runs = np.empty(len(lengths), RUNS)
    runs["tokens"], runs["trained"] = lengths, flags
    of = np.zeros(len(counts), EXAMPLES)
    of["runs"], of["plain"] = counts, documents
    of["tokens"] = np.bincount(np.repeat(np.arange(len(counts)), counts), lengths, len(counts))
    return TokenBatch(np.frombuffer(tokens, np.uint32), runs, of)


def _segments(encoder: ChatEncoder, name: str, example: Sequence[Mapping[str, Any]]) -> list[Segment]:
    try:
        return encoder.segments(messages_of(example))
    except BadInput as e:
        told = f"Example {name} cannot be written with chat template {encoder.template.name}: {e}"
        raise BadInput(f"{told.rstrip('.')}; see it with `panda data show RECIPE --id {name}`.") from None


def _document(
    encoder: ChatEncoder, example: Sequence[Mapping[str, Any]], facts: TokenizerFacts
) -> list[tuple[list[int], bool]]:
    """(token ids, whether they are trained) of a plain document: BOS, its text, EOS."""
    encoder.tokenizer.encode_special_tokens = True
    texts = [turn["text"] for turn in example]
    parts = [(e.ids, True) for e in encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    begin = [([facts.bos_id], False)] if facts.bos_id is not None else []
    return [*begin, *parts, ([facts.eos_id], True)]


def dialogue_tokens(encoder: ChatEncoder, name: str, turns: Sequence[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
    """Tokens of one dialogue of (text, trained) turns, and which of them are the text of an answer; its end of turn is not.

    Raises BadInput, naming the example, for a dialogue that the template cannot write.
    """
    segments = _segments(encoder, name, [{"text": text, "train": train} for text, train in turns])
    tokens, answers = list[int](), list[bool]()
    for segment, ids in zip(segments, encoder.encode(segments), strict=True):
        tokens += ids
        answers += [segment.trained and not segment.special] * len(ids)
    return tokens, answers

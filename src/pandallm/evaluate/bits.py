"""Bits per byte of held-out documents."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pandallm.evaluate.encode import first_token
from pandallm.evaluate.likelihood import HEAD_POSITIONS, batches


@dataclass(frozen=True)
class Document:
    """One held-out example. `turns`: (text, whether it is trained)."""

    id: str
    source: str
    language: str
    turns: tuple[tuple[str, bool], ...]

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the trained turns: what the bits are of."""
        return sum(len(text.encode()) for text, train in self.turns if train)


def read_held_out(folder: Path) -> list[Document]:
    """The held-out documents of a cleaned corpus, in order; those without trained text are left out."""
    from pandallm.data.corpus import part_batches

    rows = [r for b in part_batches(folder, "held_out", ("id", "source", "language", "turns")) for r in b.to_pylist()]
    documents = [
        Document(
            str(r["id"]),
            str(r["source"] or ""),
            str(r["language"] or ""),
            tuple((t["text"], bool(t["train"])) for t in r["turns"]),
        )
        for r in rows
    ]
    return [d for d in documents if d.bytes]


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document; `scored[i]` says whether the prediction of `tokens[i + 1]` counts."""

    document: int
    tokens: tuple[int, ...]
    scored: tuple[bool, ...]


def windows(document: int, tokens: Sequence[int], trained: Sequence[bool], length: int) -> list[Window]:
    """Windows of at most `length` + 1 tokens that predict each trained token exactly once.

    After the first, a window starts half a window earlier than what it scores, so that every prediction sees at least
    `length` // 2 tokens before it (Press et al. 2021, arXiv 2012.15832, sliding window).
    """
    out, done = [], 1  # tokens[0] is the start token, which nothing predicts
    while done < len(tokens):
        start = 0 if done == 1 else max(0, done - max(1, length // 2))
        end = min(len(tokens), start + length + 1)
        scored = tuple(i >= done and trained[i] for i in range(start + 1, end))
        if any(scored):
            out.append(Window(document, tuple(tokens[start:end]), scored))
        done = end
    return out


def document_tokens(tokenizer: Any, document: Document) -> tuple[list[int], list[bool]]:
    """Start token (BOS, or EOS without BOS), then the turns tokenised one by one; which of them are trained text."""
    tokens, trained = [first_token(tokenizer)], [False]
    for text, train in document.turns:
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens += ids
        trained += [train] * len(ids)
    return tokens, trained


def score_documents(
    model: Any,
    tokenizer: Any,
    documents: Sequence[Document],
    length: int,
    batch_tokens: int,
    done: Callable[[int], bool] = lambda i: False,
) -> Iterator[list[tuple[int, tuple[float, int]]]]:
    """Yields batches of (document index, (bits, scored tokens)).

    Bits are of the text of the trained turns alone: EOS is not scored, and other turns are only context. Documents of
    one batch of windows are finished together; batches do not depend on `done`.
    """
    for indices in _chunks([d.bytes for d in documents], 64 * batch_tokens):
        if all(done(i) for i in indices):
            continue
        cut = [w for i in indices for w in windows(i, *document_tokens(tokenizer, documents[i]), length)]
        nats = dict.fromkeys(indices, 0.0)
        count = dict.fromkeys(indices, 0)
        for batch in batches([len(w.tokens) - 1 for w in cut], batch_tokens):
            for w, value in zip(batch, _window_nats(model, [cut[w] for w in batch])):
                nats[cut[w].document] += value
                count[cut[w].document] += sum(cut[w].scored)
        yield [(i, (nats[i] / math.log(2), count[i])) for i in indices]


def _chunks(sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if chunk and total + size > limit:
            yield chunk
            chunk, total = [], 0
        chunk.append(i)
        total += size
    if chunk:
        yield chunk


@torch.inference_mode()
def _window_nats(model: Any, cut: Sequence[Window]) -> list[float]:
    """Summed negative log-probability of each window's scored tokens. Padding stands right, where causality hides it."""
    device = next(model.parameters()).device
    size = max(len(w.tokens) for w in cut) - 1
    inputs_BT = torch.zeros(len(cut), size, dtype=torch.long)
    targets_BT = torch.zeros(len(cut), size, dtype=torch.long)
    scored_BT = torch.zeros(len(cut), size, dtype=torch.bool)
    for b, w in enumerate(cut):
        n = len(w.tokens) - 1
        inputs_BT[b, :n] = torch.tensor(w.tokens[:-1])
        targets_BT[b, :n] = torch.tensor(w.tokens[1:])
        scored_BT[b, :n] = torch.tensor(w.scored)
    hidden_BTD = model.base_model(input_ids=inputs_BT.to(device), use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    hidden_ND, targets_N = hidden_BTD[scored_BT.to(device)], targets_BT[scored_BT].to(device)
    losses = [
        torch.nn.functional.cross_entropy(head(h).float(), t, reduction="none")
        for h, t in zip(hidden_ND.split(HEAD_POSITIONS), targets_N.split(HEAD_POSITIONS))
    ]
    per_token = torch.cat(losses).double().cpu()
    owner = torch.arange(len(cut))[:, None].expand_as(scored_BT)[scored_BT]
    return [float(x) for x in torch.zeros(len(cut), dtype=torch.float64).index_add_(0, owner, per_token)]

"""Cleaned corpus -> packs: tokenise, mix, pack, order; with a token ledger that adds up."""

import errno
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.engine import Engine, LocalEngine
from pandallm.data.mix import example_copies, source_amounts, unmet_shares, wanted_shares
from pandallm.data.pack_files import Selection, write_packs
from pandallm.data.rows import Packing, pack_rows, row_order
from pandallm.data.spec import SourceSpec
from pandallm.data.tokenize import tokenize_corpus, tokenizer_facts
from pandallm.data.tokens import TokenizedCorpus
from pandallm.errors import BadInput, PandaError
from pandallm.progress import SILENT, Progress
from pandallm.store import write_json, write_text

if TYPE_CHECKING:
    from pandallm.data.chat_cut import ChatTemplate

#: Raise when the same input and settings give other files.
VERSION = 2


@dataclass(frozen=True)
class Budget:
    """How much a stage reads; exactly one is set."""

    epochs: float | None
    documents: int | None
    tokens: int | None
    steps: int | None

    def __post_init__(self) -> None:
        if sum(b is not None for b in (self.epochs, self.documents, self.tokens, self.steps)) != 1:
            raise BadInput("Give exactly one of epochs, documents, tokens, steps as the budget of a stage.")


def pack_corpus(
    cleaned: Path,
    tokenizer: Path,
    out: Path,
    *,
    packing: Packing,
    sources: Mapping[str, SourceSpec],
    sequence_length: int,
    batch_sequences: int,
    epochs: float | None = None,
    documents: int | None = None,
    tokens: int | None = None,
    steps: int | None = None,
    seed: int,
    add_bos: bool | None = None,
    chat: "ChatTemplate | None" = None,
    loss_on: str = "answers",
    workers: int = 1,
    engine: Engine | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the packs folder of docs/design.md to `out` and return its pack.json.

    cleaned: a cleaned-corpus folder. tokenizer: a folder with tokenizer.json. Exactly one of epochs, documents (examples
    read, repeated ones each time), tokens (all tokens read, masked ones too) and steps is the budget. add_bos None: as
    the tokenizer declares. engine None: `workers` processes of this machine.

    Targets are the tokens of trained turns and the EOS after them (loss_on "all": every token), except the first token of an
    example or piece, which nothing predicts. Plain text longer than a row is cut into consecutive pieces; other examples lose their end
    (`truncated`), and are left out where that takes every target. Examples below their source's `min_quality`, or
    without a quality, are counted as `below_quality` and not tokenised.

    With shares, one pass holds each source by its share of tokens, at most `max_epochs` times; an `epochs` budget is
    that many passes of as many tokens as the corpus has. Achieved shares stand in the ledger, and what cannot be met in
    `warnings`, a sentence each.

    The bytes written depend neither on the engine nor on kills: a killed call leaves finished shards of tokens in
    `out/.tokens`, and the next one goes on from them. No more than a few million tokens are in memory at a time, and
    about 200 bytes an example.

    Raises BadInput for a budget that is not exactly one, an unfit tokenizer, shares that cannot be, and no target;
    PandaError where the disk is full.
    """
    budget = Budget(epochs, documents, tokens, steps)
    facts = tokenizer_facts(tokenizer, add_bos)
    least = {name: spec.min_quality for name, spec in sources.items() if spec.min_quality is not None}
    try:
        with nullcontext(engine) if engine else LocalEngine(workers) as used:
            shards = tokenize_corpus(
                cleaned, facts, out / ".tokens", used, min_quality=least, chat=chat, loss_on=loss_on, progress=progress
            )
        corpus = TokenizedCorpus.open(out / ".tokens", shards, facts)
        if len(corpus.source_names) > 256:
            raise BadInput(f"The corpus has {len(corpus.source_names)} sources; at most 256 can be packed together.")
        lengths = _fit(corpus, sequence_length)
        copies, shares, warnings = _mix(
            corpus, lengths, sources, packing, sequence_length, batch_sequences, budget, seed
        )
        if not (_targets(corpus, lengths) * (copies > 0)).any():
            raise BadInput(_nothing(cleaned, corpus, sequence_length))
        entries = np.repeat(np.arange(len(copies), dtype=np.int32), copies)
        segments = pack_rows(lengths[entries], corpus.plain[entries], sequence_length, packing, seed)
        row_tokens = np.bincount(segments.row, segments.length, segments.rows).astype(np.int64)
        order = row_order(
            row_tokens,
            batch_sequences,
            seed,
            epochs=epochs,
            documents=documents,
            tokens=tokens,
            steps=steps,
            row_examples=np.bincount(segments.row, segments.begin == 0, segments.rows).astype(np.int64),
        )
        ledger = write_packs(corpus, Selection(lengths, copies, entries, segments, order), out, progress)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        raise PandaError(
            f"The disk that holds {out} is full; make room and run the same command again: finished shards of tokens are kept."
        ) from None
    if not ledger["total"]["trained"]:
        raise BadInput("The budget of the stage reads no trained token; raise it.")
    if shares is not None:
        for name, share in zip(corpus.source_names, shares.tolist(), strict=True):
            ledger["sources"][name]["wanted_share"] = share
    cut = np.bincount(segments.entry, minlength=len(entries)) > 1
    pack = {
        "sequence_length": sequence_length,
        "batch_sequences": batch_sequences,
        "rows": segments.rows,
        "steps": -(-len(order) // batch_sequences),
        "sources": corpus.source_names,
        "languages": corpus.language_names,
        "eos_id": facts.eos_id,
        "bos_id": facts.bos_id,
        "packing": packing,
        "fill": float(row_tokens.sum() / (segments.rows * sequence_length)),
        "examples": len(entries),
        "examples_cut": int(cut.sum()),
        "warnings": warnings,
        "ledger": ledger,
    }
    if chat:
        pack["chat_template"] = _keep_template(chat, tokenizer, out, warnings)
    write_json(out / "pack.json", pack)
    shutil.rmtree(out / ".tokens")
    return pack


def _fit(corpus: TokenizedCorpus, room: int) -> NDArray[np.int32]:
    """Tokens of each example that go into rows: (examples,), 0 for one left out."""
    lengths = corpus.lengths
    kept = np.where(corpus.plain, lengths, np.minimum(lengths, room)).astype(np.int32)
    left_out = (kept < lengths) & (_targets(corpus, kept) == 0)
    return np.where(left_out, 0, kept).astype(np.int32)


def _keep_template(chat: "ChatTemplate", tokenizer: Path, out: Path, warnings: list[str]) -> dict[str, Any]:
    """Write chat_template.jinja, which training saves with the tokenizer; what of it stands in pack.json."""
    from pandallm.data.chat import ChatEncoder
    from pandallm.data.tokenize import load_tokenizer

    encoder = ChatEncoder(load_tokenizer(tokenizer), chat)
    if not encoder.joins_alike():
        warnings.append(
            f"This tokenizer joins characters across the places where chat template {chat.name} is cut: servers, which tokenise "
            "the whole text, will read slightly other tokens than training."
        )
    write_text(out / "chat_template.jinja", chat.text)
    end = encoder.end_of_turn
    return {"name": chat.name, "end_of_turn": encoder.turn_end or encoder.eos_token, "end_of_turn_id": end}


def _targets(corpus: TokenizedCorpus, kept: NDArray[np.int32]) -> NDArray[np.int64]:
    """Targets of each example where its first `kept` tokens are one piece: (examples,)."""
    starts = corpus.offsets[:-1]
    ends = starts + kept
    # The first token is no target, whatever it is.
    return corpus.trained_up_to(ends) - corpus.trained_up_to(np.minimum(starts + 1, ends))


def _nothing(cleaned: Path, corpus: TokenizedCorpus, sequence_length: int) -> str:
    if cut := sum(entry["examples"] for entry in corpus.below_quality.values()):
        return (
            f"No token of {cleaned} would be trained: {cut} of its examples lie below min_quality or have no quality; "
            "lower min_quality, or give the corpus a score step or a quality_field."
        )
    return f"No token of {cleaned} would be trained at sequence_length {sequence_length}; raise it or check the corpus."


def _mix(
    corpus: TokenizedCorpus,
    lengths: NDArray[np.int32],
    sources: Mapping[str, SourceSpec],
    packing: Packing,
    sequence_length: int,
    batch_sequences: int,
    budget: Budget,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, list[str]]:
    """Copies of each example in one pass, the shares that the recipe wants (None: all once), and what cannot be met."""
    names = corpus.source_names
    shares = wanted_shares(names, sources)
    if shares is None:
        return (lengths > 0).astype(np.int64), None, []
    unique = np.bincount(corpus.sources, lengths, len(names)).astype(np.int64)
    for name, share, there in zip(names, shares.tolist(), unique.tolist(), strict=True):
        if share and not there:
            raise BadInput(
                f"Source {name} has a share but none of its examples can be packed: they lie below min_quality, or "
                f"no answer fits into sequence_length {sequence_length}; loosen either or take the source out."
            )
    caps = np.array([sources[name].max_epochs if name in sources else 0.0 for name in names])
    target = _target(corpus, lengths, unique, shares, packing, sequence_length, batch_sequences, budget)
    fill = budget.epochs is None
    amounts = source_amounts(unique, shares, caps, target, fill=fill)
    if budget.documents is not None:
        each = unique / np.maximum(np.bincount(corpus.sources, lengths > 0, len(names)), 1)
        # Capped sources leave their tokens to others, whose examples may be longer, and which examples a pass draws is chance: it
        # must still hold the budget and the last step.
        wanted = budget.documents + 2 * budget.documents**0.5
        for _ in range(8):
            held = float((amounts / np.maximum(each, 1)).sum())
            needed = wanted + batch_sequences * sequence_length * held / amounts.sum()
            if held >= needed or amounts.sum() < 0.99 * target:
                break
            target *= 1.01 * needed / held
            amounts = source_amounts(unique, shares, caps, target, fill=fill)
    warnings = unmet_shares(names, unique, shares, caps, amounts, target)
    if fill and amounts.sum() < 0.99 * target:
        warnings.append(
            f"The budget of about {target:,.0f} tokens is more than max_epochs allows ({amounts.sum():,.0f}); "
            "the whole mix is repeated to reach it."
        )
    return example_copies(lengths, corpus.sources, amounts, seed), shares, warnings


def _target(
    corpus: TokenizedCorpus,
    lengths: NDArray[np.int32],
    unique: NDArray[np.int64],
    shares: NDArray[np.float64],
    packing: Packing,
    sequence_length: int,
    batch_sequences: int,
    budget: Budget,
) -> float:
    """Tokens that one pass of the mix should hold; a little more than the budget, which is then cut exactly."""
    if budget.epochs is not None:
        return float(unique.sum())
    step = batch_sequences * sequence_length
    if budget.tokens is not None:
        return float(budget.tokens + step)

    def mean_tokens(counts: NDArray[Any]) -> float:
        """Tokens of one of what is counted by source, in a mix of these shares of tokens."""
        each = unique / np.maximum(counts, 1)
        return 1 / float((shares / np.maximum(each, 1)).sum()) * 1.01

    if budget.documents is not None:
        return budget.documents * mean_tokens(np.bincount(corpus.sources, lengths > 0, len(unique))) + step
    assert budget.steps is not None
    row = float(sequence_length)
    if packing == "one_per_sequence":
        row = mean_tokens(np.bincount(corpus.sources, -(-lengths // sequence_length), len(unique)))
    return budget.steps * batch_sequences * row

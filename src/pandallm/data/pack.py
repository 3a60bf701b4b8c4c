"""Cleaned corpus -> packs: tokenise, mix, pack, order; with a token ledger that adds up."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.mix import example_copies, source_amounts, wanted_shares
from pandallm.data.rows import Packing, Segments, pack_rows, row_order
from pandallm.data.spec import SourceSpec
from pandallm.data.tokenize import TokenizedCorpus, tokenize_corpus, tokenizer_facts
from pandallm.errors import BadInput, PandaError
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_file, write_json

#: Raise when the same input and settings give other files.
VERSION = 1

_GATHER_TOKENS = 1 << 22


@dataclass(frozen=True)
class _Fitted:
    """What of each example goes into rows: `lengths` (examples,), 0 for one left out."""

    lengths: NDArray[np.int64]
    truncated: NDArray[np.int64]


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
    tokens: int | None = None,
    steps: int | None = None,
    seed: int,
    add_bos: bool | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the packs folder of docs/design.md to `out` and return its pack.json.

    cleaned: a cleaned-corpus folder. tokenizer: a folder with tokenizer.json. Exactly one of epochs, tokens (all tokens
    read, masked ones too) and steps is the budget. add_bos None: as the tokenizer declares.

    Targets are the tokens of trained turns and the EOS after them, except the first token of an example or piece, which
    nothing predicts. Plain text longer than a row is cut into consecutive pieces; other examples lose their end
    (`truncated`), and are left out where that takes every target.

    With shares, one pass holds each source by its share of tokens, at most `max_epochs` times; an `epochs` budget is
    that many passes of as many tokens as the corpus has. Achieved shares stand in the ledger. The bytes written do not
    depend on `workers`.

    Raises BadInput for a budget that is not exactly one, an unfit tokenizer, shares that cannot be, and no target.
    """
    if sum(b is not None for b in (epochs, tokens, steps)) != 1:
        raise BadInput("Give exactly one of epochs, tokens, steps as the budget of a stage.")
    facts = tokenizer_facts(tokenizer, add_bos)
    corpus = tokenize_corpus(cleaned, facts, workers, progress)
    if len(corpus.source_names) > 256:
        raise BadInput(f"The corpus has {len(corpus.source_names)} sources; at most 256 can be packed together.")
    fitted = _fit(corpus, sequence_length)
    shares = wanted_shares(corpus.source_names, sources)
    copies = (fitted.lengths > 0).astype(np.int64)
    if shares is not None:
        unique = np.bincount(corpus.sources, fitted.lengths, len(corpus.source_names)).astype(np.int64)
        caps = np.array([sources[name].max_epochs for name in corpus.source_names])
        target = _target(corpus, fitted, shares, packing, sequence_length, batch_sequences, tokens, steps)
        amounts = source_amounts(unique, shares, caps, target, fill=epochs is None)
        if epochs is None and amounts.sum() < 0.99 * target:
            progress.say("The budget is larger than max_epochs allows; the whole mix is repeated to reach it.")
        copies = example_copies(fitted.lengths, corpus.sources, amounts, seed)
    entries = np.repeat(np.arange(len(copies)), copies)
    if not len(entries) or not (_targets(corpus, fitted) * (copies > 0)).any():
        raise BadInput(
            f"No token of {cleaned} would be trained at sequence_length {sequence_length}; raise it or check the corpus."
        )
    segments = pack_rows(fitted.lengths[entries], corpus.plain[entries], sequence_length, packing, seed)
    row_tokens = np.bincount(segments.row, segments.length, segments.rows).astype(np.int64)
    order = row_order(row_tokens, batch_sequences, seed, epochs=epochs, tokens=tokens, steps=steps)
    out.mkdir(parents=True, exist_ok=True)
    ledger = _write(corpus, fitted, entries, segments, order, out, facts.vocabulary)
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
        "ledger": ledger,
        "digests": {p.stem: digest_file(p) for p in sorted(out.glob("*.npy"))},
    }
    write_json(out / "pack.json", pack)
    return pack


def _fit(corpus: TokenizedCorpus, room: int) -> _Fitted:
    lengths = corpus.lengths
    kept = np.where(corpus.plain, lengths, np.minimum(lengths, room))
    sums = np.concatenate([[0], np.cumsum(corpus.trained, dtype=np.int64)])
    starts = corpus.offsets[:-1]
    # The first token is no target, whatever it is.
    targets = sums[starts + kept] - sums[np.minimum(starts + 1, starts + kept)]
    left_out = (kept < lengths) & (targets == 0)
    kept = np.where(left_out, 0, kept)
    return _Fitted(kept, lengths - kept)


def _targets(corpus: TokenizedCorpus, fitted: _Fitted) -> NDArray[np.int64]:
    """Targets of each example where it is not cut further: (examples,)."""
    sums = np.concatenate([[0], np.cumsum(corpus.trained, dtype=np.int64)])
    starts, ends = corpus.offsets[:-1], corpus.offsets[:-1] + fitted.lengths
    return sums[ends] - sums[np.minimum(starts + 1, ends)]


def _target(
    corpus: TokenizedCorpus,
    fitted: _Fitted,
    shares: NDArray[np.float64],
    packing: Packing,
    sequence_length: int,
    batch_sequences: int,
    tokens: int | None,
    steps: int | None,
) -> float:
    """Tokens that one pass of the mix should hold; a little more than the budget, which is then cut exactly."""
    if tokens is not None:
        return float(tokens + batch_sequences * sequence_length)
    if steps is None:
        return float(fitted.lengths.sum())
    row = float(sequence_length)
    if packing == "one_per_sequence":
        names = len(shares)
        pieces = np.bincount(corpus.sources, -(-fitted.lengths // sequence_length), names)
        per_piece = np.bincount(corpus.sources, fitted.lengths, names) / np.maximum(pieces, 1)
        row = 1 / float((shares / np.maximum(per_piece, 1)).sum()) * 1.01
    return steps * batch_sequences * row


def _save(path: Path, array: NDArray[Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as f:
        np.save(f, array, allow_pickle=False)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)


def _write(
    corpus: TokenizedCorpus,
    fitted: _Fitted,
    entries: NDArray[np.int64],
    segments: Segments,
    order: NDArray[np.int32],
    out: Path,
    vocabulary: int,
) -> dict[str, Any]:
    """Write the arrays and examples.parquet; return the token ledger."""
    ends = np.cumsum(segments.length)
    total, starts = int(ends[-1]), ends - segments.length
    row_starts = starts[np.searchsorted(segments.row, np.arange(segments.rows))]
    reads = np.bincount(order, minlength=segments.rows)  # how often each row is read
    types = {
        "input_ids": np.uint16 if vocabulary <= 1 << 16 else np.uint32,
        "loss_mask": np.uint8,
        "example_ids": np.int32,
        "source_ids": np.uint8,
    }
    parts = {name: out / f".{name}.npy.part" for name in types}
    arrays = {
        name: np.lib.format.open_memmap(parts[name], "w+", dtype=np.dtype(dtype), shape=(total,))
        for name, dtype in types.items()
    }
    read, target = np.zeros(len(corpus.ids), np.bool_), np.zeros(len(corpus.ids), np.bool_)
    names = len(corpus.source_names)
    exposures, trained_exposures = np.zeros(names, np.int64), np.zeros(names, np.int64)
    trained_of_row, trained_of_entry = np.zeros(segments.rows, np.int64), np.zeros(len(entries), np.int64)
    example = entries[segments.entry]
    flat = corpus.offsets[example] + segments.begin  # where each segment begins in corpus.ids
    first = 0
    while first < len(starts):  # a few million tokens at a time
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _GATHER_TOKENS, "right")))
        sizes = segments.length[first:last]
        span = slice(int(starts[first]), int(ends[last - 1]))
        segment = np.repeat(np.arange(first, last), sizes)
        within = np.arange(span.start, span.stop) - starts[segment]
        at = flat[segment] + within
        mask = (corpus.trained[at] > 0) & (within > 0)
        source = corpus.sources[example[segment]]
        times = reads[segments.row[segment]]
        arrays["input_ids"][span] = corpus.ids[at]
        arrays["loss_mask"][span] = mask
        arrays["example_ids"][span] = segments.entry[segment]
        arrays["source_ids"][span] = source
        read[at[times > 0]] = True
        target[at[(times > 0) & mask]] = True
        exposures += np.bincount(source, times, names).astype(np.int64)
        trained_exposures += np.bincount(source, times * mask, names).astype(np.int64)
        trained_of_row += np.bincount(segments.row[segment], mask, segments.rows).astype(np.int64)
        trained_of_entry += np.bincount(segments.entry[segment], mask, len(entries)).astype(np.int64)
        first = last
    for name, array in arrays.items():
        array.flush()
        os.replace(parts[name], out / f"{name}.npy")
    _save(out / "row_offsets.npy", np.concatenate([row_starts, [total]]).astype(np.int64))
    _save(out / "row_trained_tokens.npy", trained_of_row.astype(np.int32))
    _save(out / "order.npy", order)
    _write_examples(corpus, fitted, entries, trained_of_entry, out)
    return _ledger(corpus, fitted, read, target, exposures, trained_exposures)


def _write_examples(
    corpus: TokenizedCorpus, fitted: _Fitted, entries: NDArray[np.int64], trained: NDArray[np.int64], out: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": pa.array(corpus.example_names, pa.string()).take(pa.array(entries)),
            "source": pa.array(corpus.source_names, pa.string()).take(pa.array(corpus.sources[entries])),
            "language": pa.array(corpus.language_names, pa.string()).take(pa.array(corpus.languages[entries])),
            "tokens": fitted.lengths[entries],
            "trained_tokens": trained,
            "utf8_bytes": corpus.utf8_bytes[entries],
        }
    )
    part = out / ".examples.parquet.part"
    pq.write_table(table, part, compression="zstd")
    os.replace(part, out / "examples.parquet")


def _ledger(
    corpus: TokenizedCorpus,
    fitted: _Fitted,
    read: NDArray[np.bool_],
    target: NDArray[np.bool_],
    exposures: NDArray[np.int64],
    trained_exposures: NDArray[np.int64],
) -> dict[str, Any]:
    """unique = trained + masked + truncated + over_budget, in tokens; a token that is ever a target counts as trained."""
    names, starts = corpus.source_names, corpus.offsets[:-1]
    reads, targets = np.add.reduceat(read, starts, dtype=np.int64), np.add.reduceat(target, starts, dtype=np.int64)

    def by_source(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(corpus.sources, tokens, len(names)).astype(np.int64)

    parts = {
        "unique": by_source(corpus.lengths),
        "trained": by_source(targets),
        "masked": by_source(reads - targets),
        "truncated": by_source(fitted.truncated),
        "over_budget": by_source(fitted.lengths - reads),
        "exposures": exposures,
        "trained_exposures": trained_exposures,
    }
    entries = [{part: int(values[i]) for part, values in parts.items()} for i in range(len(names))]
    total = {part: int(values.sum()) for part, values in parts.items()}
    result: dict[str, Any] = {"sources": dict(zip(names, entries, strict=True)), "total": total}
    for name, entry in [*result["sources"].items(), ("all sources", total)]:
        if entry["unique"] != sum(entry[p] for p in ("trained", "masked", "truncated", "over_budget")):
            raise PandaError(f"The token ledger of {name} does not add up: {entry}.")
        entry["passes"] = entry["exposures"] / entry["unique"] if entry["unique"] else 0.0
        entry["share"] = entry["exposures"] / total["exposures"] if total["exposures"] else 0.0
    return result

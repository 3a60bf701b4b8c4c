"""Steps and tokens of a stage before it runs: from its packs, from its files, or from what the recipe expects of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pandallm.data.mix import source_amounts, unmet_shares, wanted_shares
from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.store import read_json
from pandallm.train.spec import TrainSpec

#: Rows of best-fit packing are this full where nothing better is known.
FILL = 0.98
#: Relative error of tokens where records and sizes come from the recipe alone; judgement.
EXPECTED_ERROR = 0.25
#: Where text is here but no tokenizer: sources differed by up to 8 % from the mean of their language.
TEXT_ERROR = 0.15
#: A corpus is not read more often than this.
MOST_PASSES = 100.0


@dataclass(frozen=True)
class SourceTokens:
    """What is known of a source: all of it once. rows: of one pass, where each example has rows of its own."""

    unique: float
    examples: float
    rows: float
    trained_share: float = 1.0


@dataclass(frozen=True)
class StageTokens:
    """Steps and tokens of a stage.

    tokens: read by training, repeated ones each time. row_tokens: mean of a row. context_tokens: mean length of the example that a
    token stands in, as attention pays for it. source: `packs`, `all files`, `sample`, `text`, `expected` or `budget`. error: relative, of
    `tokens`; 0 where exact.
    """

    steps: int
    tokens: float
    trained_tokens: float
    unique_tokens: float
    rows: float
    row_tokens: float
    context_tokens: float
    example_tokens: float
    source: str
    error: float
    warnings: tuple[str, ...] = ()
    by_source: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained_share(self) -> float:
        return self.trained_tokens / self.tokens if self.tokens else 1.0

    @property
    def passes(self) -> float:
        return self.tokens / self.unique_tokens if self.unique_tokens else 1.0

    def facts(self) -> dict[str, Any]:
        """As pack.json would say it, for the linter."""
        total = {
            "unique": round(self.unique_tokens),
            "exposures": round(self.tokens),
            "trained": round(self.unique_tokens * self.trained_share),
        }
        return {"steps": self.steps, "rows": max(1, round(self.rows)), "ledger": {"total": total}}

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "tokens": round(self.tokens),
            "trained_tokens": round(self.trained_tokens),
            "unique_tokens": round(self.unique_tokens),
            "passes": round(self.passes, 3),
            "row_tokens": round(self.row_tokens, 1),
            "context_tokens": round(self.context_tokens, 1),
            "from": self.source,
            "error": round(self.error, 4),
            "by_source": {name: round(n) for name, n in self.by_source.items()},
        }


def tokens_of_packs(folder: Path, source: str = "packs") -> StageTokens:
    """Exactly what a packs folder holds."""
    facts = read_json(folder / "pack.json")
    total = facts["ledger"]["total"]
    offsets = np.load(folder / "row_offsets.npy", mmap_mode="r")
    order = np.load(folder / "order.npy", mmap_mode="r")
    trained = np.load(folder / "row_trained_tokens.npy", mmap_mode="r")
    lengths = np.diff(offsets)
    read = int(lengths[order].sum())
    context, example = _contexts(folder)
    return StageTokens(
        steps=int(facts["steps"]),
        tokens=read,
        trained_tokens=int(trained[order].sum(dtype=np.int64)),
        unique_tokens=int(total["unique"]),
        rows=int(facts["rows"]),
        row_tokens=float(lengths.mean()),
        context_tokens=context,
        example_tokens=example,
        source=source,
        error=0.0,
        warnings=tuple(facts["warnings"]),
        by_source={n: float(s["exposures"]) for n, s in facts["ledger"]["sources"].items()},
    )


def _contexts(folder: Path) -> tuple[float, float]:
    """Mean length of the piece that a token stands in, and of a piece, by the rows' beginning (about a million tokens)."""
    ids = np.load(folder / "example_ids.npy", mmap_mode="r")[: 1 << 20]
    offsets = np.load(folder / "row_offsets.npy", mmap_mode="r")
    edges = np.flatnonzero(np.diff(np.asarray(ids))) + 1
    cuts = np.union1d(edges, offsets[(offsets > 0) & (offsets < len(ids))])
    pieces = np.diff(np.concatenate([[0], cuts, [len(ids)]])).astype(np.float64)
    return float((pieces**2).sum() / pieces.sum()), float(pieces.mean())


def source_tokens_of_packs(folder: Path, shares: Mapping[str, float]) -> dict[str, SourceTokens]:
    """Per source what one pass over a sample's packs holds, scaled up by `shares` (of the source's records)."""
    import pyarrow.parquet as pq

    facts = read_json(folder / "pack.json")
    names = list(facts["sources"])
    sources = np.load(folder / "source_ids.npy", mmap_mode="r")
    offsets = np.load(folder / "row_offsets.npy", mmap_mode="r")
    rows = np.bincount(np.asarray(sources[offsets[:-1]]), minlength=len(names))
    table = pq.read_table(folder / "examples.parquet", columns=["source"]).column("source").value_counts().to_pylist()
    examples = {entry["values"]: int(entry["counts"]) for entry in table}
    found = {}
    for i, name in enumerate(names):
        entry = facts["ledger"]["sources"][name]
        unique = float(entry["unique"] - entry["truncated"])
        share = shares.get(name, 1.0)
        found[name] = SourceTokens(
            unique / share, examples.get(name, 0) / share, float(rows[i]) / share, entry["trained"] / max(1.0, unique)
        )
    return found


def source_tokens_of_text(
    cleaned: Path, shares: Mapping[str, float], tokens_per_byte: Mapping[str, float], spec: TrainSpec
) -> dict[str, SourceTokens]:
    """The same from a cleaned sample and tokens per byte by language, without a tokenizer."""
    from pandallm.data.corpus import part_batches

    found: dict[str, list[float]] = {}
    for batch in part_batches(cleaned, "examples", ("source", "language", "turns", "utf8_bytes")):
        columns = (batch.column(c).to_pylist() for c in ("source", "language", "turns", "utf8_bytes"))
        for source, language, turns, size in zip(*columns, strict=True):
            each = tokens_per_byte.get(language, tokens_per_byte["other"])
            tokens = size * each + 1
            trained = sum(len(t["text"].encode()) for t in turns if t["train"]) * each + 1
            if len(turns) > 1:  # dialogues lose their end, plain text is cut
                tokens = min(tokens, spec.sequence_length)
            entry = found.setdefault(source, [0.0, 0.0, 0.0, 0.0])
            for i, n in enumerate((tokens, 1.0, float(np.ceil(tokens / spec.sequence_length)), min(trained, tokens))):
                entry[i] += n / shares.get(source, 1.0)
    return {s: SourceTokens(t, n, rows, trained / t) for s, (t, n, rows, trained) in found.items()}


def expected_sources(
    corpus: CorpusSpec, tokens_per_byte: Mapping[str, float], spec: TrainSpec
) -> dict[str, SourceTokens]:
    """What the recipe says of sources whose files are not here. {} where a source says nothing.

    tokens_per_byte: by language. Of records only the mean is known, so none is taken to be longer than a row.
    """
    found = {}
    for name, source in corpus.sources.items():
        e = source.expected
        if e is None:
            return {}
        if e.tokens_per_record is not None:
            each = e.tokens_per_record
        elif e.bytes_per_record is not None:
            each = e.bytes_per_record * tokens_per_byte.get(source.language, tokens_per_byte["other"])
        else:
            return {}
        records = min(e.records, source.max_records or e.records)
        each = each + 1  # the end of the example
        rows = records * max(1.0, each / spec.sequence_length)
        found[name] = SourceTokens(records * each, float(records), rows, 1.0)
    return found


def stage_tokens(
    where: str,
    spec: TrainSpec,
    corpus: CorpusSpec,
    sources: Mapping[str, SourceTokens],
    *,
    source: str,
    error: float,
    fill: float = FILL,
    context_tokens: float | None = None,
) -> StageTokens:
    """Steps and tokens of a stage by its budget, of a corpus with these sources. `where`: the stage in messages.

    Raises BadInput for a corpus without tokens and for a budget that would read it more than MOST_PASSES times.
    """
    names = list(sources)
    unique = np.array([sources[n].unique for n in names])
    total = float(unique.sum())
    if total <= 0:
        raise BadInput(f"{where}: its corpus holds no token to train on; check its files and cleaning.")
    shares = wanted_shares(names, corpus.sources)
    amounts, warnings = unique, []
    each = unique / np.maximum([sources[n].examples for n in names], 1e-9)
    per_row = np.array([_row_tokens(sources[n], spec, corpus.packing, fill) for n in names])
    if shares is not None:
        caps = np.array([corpus.sources[n].max_epochs for n in names])
        target = _target(spec, shares, each, per_row, total)
        whole = unique.astype(np.int64)
        amounts = source_amounts(whole, shares, caps, target, fill=spec.epochs is None)
        warnings = unmet_shares(names, whole, shares, caps, amounts, target)
    pass_tokens = float(amounts.sum())
    pass_rows = float((amounts / per_row).sum())
    pass_examples = float((amounts / each).sum())
    row_tokens = pass_tokens / pass_rows
    batch = spec.batch_sequences
    if spec.epochs is not None:
        rows = max(1.0, spec.epochs * pass_rows)
        steps = math.ceil(rows / batch - 1e-9)
    elif spec.steps is not None:
        steps = spec.steps
        rows = float(steps * batch)
    else:
        budget, held = (spec.documents, pass_examples) if spec.documents is not None else (spec.tokens, pass_tokens)
        assert budget is not None
        steps = max(1, math.ceil(budget / (held / pass_rows) / batch - 1e-9))
        rows = float(steps * batch)
    tokens = rows * row_tokens
    if tokens > MOST_PASSES * total:
        raise BadInput(
            f"{where}: the budget of about {tokens:,.0f} tokens would read its corpus of about {total:,.0f} tokens "
            f"{tokens / total:,.0f} times; lower the budget or give it more text."
        )
    trained = float((amounts * np.array([sources[n].trained_share for n in names])).sum()) / pass_tokens
    example = pass_tokens / pass_examples
    return StageTokens(
        steps=steps,
        tokens=tokens,
        trained_tokens=tokens * trained,
        unique_tokens=total,
        rows=pass_rows,
        row_tokens=row_tokens,
        context_tokens=context_tokens or min(example, spec.sequence_length),
        example_tokens=min(example, spec.sequence_length),
        source=source,
        error=error,
        warnings=tuple(warnings),
        by_source={n: float(a * tokens / pass_tokens) for n, a in zip(names, amounts.tolist(), strict=True)},
    )


def _row_tokens(source: SourceTokens, spec: TrainSpec, packing: str, fill: float) -> float:
    if packing == "one_per_sequence":
        return max(1.0, source.unique / max(1e-9, source.rows))
    return spec.sequence_length * (fill if packing == "best_fit" else 0.999)


def _target(spec: TrainSpec, shares: Any, each: Any, per_row: Any, total: float) -> float:
    """Tokens that one pass of the mix should hold, as data/pack.py reckons it."""
    step = float(spec.batch_sequences * spec.sequence_length)
    if spec.epochs is not None:
        return total
    if spec.tokens is not None:
        return spec.tokens + step
    if spec.documents is not None:
        return float(spec.documents / (shares / each).sum()) + step
    assert spec.steps is not None
    return float(spec.steps * spec.batch_sequences / (shares / per_row).sum())


def budget_tokens(spec: TrainSpec) -> StageTokens | None:
    """What the budget alone says, nothing being known of the corpus: full rows. None for epochs and documents."""
    row = FILL * spec.sequence_length
    if spec.steps is not None:
        steps = spec.steps
    elif spec.tokens is not None:
        steps = math.ceil(spec.tokens / row / spec.batch_sequences)
    else:
        return None
    tokens = steps * spec.batch_sequences * row
    return StageTokens(
        steps, tokens, tokens, 0.0, float(steps * spec.batch_sequences), row, row / 2, row / 2, "budget", 0.05
    )

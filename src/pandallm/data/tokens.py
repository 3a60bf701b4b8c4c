"""Reading a tokenised corpus: what packing needs of each example in memory, the tokens themselves on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.tokenize import TokenizerFacts
from pandallm.store import read_json

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TokenizedCorpus:
    """All examples' tokens, one after the other in the shards' order, BOS and EOS included; about 30 bytes of memory an example.

    offsets: (examples + 1,), where each example begins among all tokens. sources: (examples,), index into source_names, which also holds
    sources without an example above the least quality. plain: (examples,), whether every turn is trained. run_starts: (runs + 1,), where
    each run, a stretch of tokens that are all trained (run_trained) or not, begins among all tokens; trained_before: (runs + 1,), trained
    tokens before each. below_quality: source -> {"examples", "bytes"} left out by the least quality.
    """

    shards: tuple[Path, ...]
    shard_tokens: NDArray[np.int64]
    shard_examples: tuple[int, ...]
    dtype: np.dtype[Any]
    offsets: NDArray[np.int64]
    sources: NDArray[np.uint16]
    source_names: list[str]
    language_names: list[str]
    plain: NDArray[np.bool_]
    run_starts: NDArray[np.int64]
    run_trained: NDArray[np.bool_]
    trained_before: NDArray[np.int64]
    below_quality: dict[str, dict[str, int]]

    @classmethod
    def open(cls, folder: Path, shards: int, facts: TokenizerFacts) -> "TokenizedCorpus":
        """The shards that `tokenize_corpus` wrote below `folder`."""
        paths = tuple(folder / f"{number:05}" for number in range(shards))
        names: dict[str, int] = {}
        languages: set[str] = set()
        below: dict[str, dict[str, int]] = {}
        examples, runs = [], []
        for path in paths:
            told = read_json(path / "facts.json")
            languages.update(told["languages"])
            for name in told["sources"]:
                entry = below.setdefault(name, {"examples": 0, "bytes": 0})
                for unit, amount in told["below_quality"].get(name, {}).items():
                    entry[unit] += amount
            loaded = np.load(path / "examples.npy", allow_pickle=False)
            numbers = np.array([names.setdefault(name, len(names)) for name in told["sources"]], np.uint16)
            loaded["source"] = numbers[loaded["source"]]
            examples.append(loaded)
            runs.append(np.load(path / "runs.npy", allow_pickle=False))

        def column(parts: list[NDArray[Any]], name: str, dtype: Any) -> NDArray[Any]:
            return np.concatenate([p[name] for p in parts]) if parts else np.zeros(0, dtype)

        trained = column(runs, "trained", np.bool_)
        run_tokens = column(runs, "tokens", np.int32)
        return cls(
            paths,
            np.array([int(p["tokens"].sum(dtype=np.int64)) for p in examples], np.int64),
            tuple(len(p) for p in examples),
            np.dtype(facts.typecode),
            _starts(column(examples, "tokens", np.int32)),
            column(examples, "source", np.uint16),
            list(names),
            sorted(languages),
            column(examples, "plain", np.bool_),
            _starts(run_tokens),
            trained,
            _starts(run_tokens * trained),
            below,
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example: (examples,)."""
        return np.diff(self.offsets)

    def trained_up_to(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the tokens before each position, counted over the whole corpus, belong to trained turns."""
        if not len(self.run_trained):
            return np.zeros(len(positions), np.int64)
        run = np.minimum(np.searchsorted(self.run_starts, positions, "right") - 1, len(self.run_trained) - 1)
        return self.trained_before[run] + (positions - self.run_starts[run]) * self.run_trained[run]

    def trained_flags(self, starts: NDArray[np.int64], lengths: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Of stretches of tokens, each from `starts` on and not empty, laid end to end: whether a token belongs to a trained turn."""
        first = np.searchsorted(self.run_starts, starts, "right") - 1
        counts = np.searchsorted(self.run_starts, starts + lengths, "left") - first
        run = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        begins = np.maximum(self.run_starts[run], np.repeat(starts, counts))
        ends = np.minimum(self.run_starts[run + 1], np.repeat(starts + lengths, counts))
        return np.repeat(self.run_trained[run], ends - begins)

    def read(self, starts: NDArray[np.int64], lengths: NDArray[np.integer]) -> NDArray[Any]:
        """The tokens of these stretches, laid end to end. Shards are opened one after the other, each once."""
        out = np.empty(int(lengths.sum()), self.dtype)
        places = np.cumsum(lengths) - lengths
        order = np.argsort(starts, kind="stable")
        shard_starts = _starts(self.shard_tokens)
        cuts = np.searchsorted(starts[order], shard_starts)
        for shard in np.flatnonzero(np.diff(cuts)).tolist():
            members = order[cuts[shard] : cuts[shard + 1]]
            tokens = np.asarray(np.memmap(self.shards[shard] / "ids.bin", self.dtype, "r"))  # plain slices are quicker
            begins = (starts[members] - shard_starts[shard]).tolist()
            for place, begin, length in zip(places[members].tolist(), begins, lengths[members].tolist(), strict=True):
                out[place : place + length] = tokens[begin : begin + length]
        return out

    def tables(self) -> Iterator["pa.Table"]:
        """`id, source, language, utf8_bytes` of the examples, a table a shard."""
        import pyarrow.parquet as pq

        for path in self.shards:
            yield pq.read_table(path / "examples.parquet")


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of consecutive stretches begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)

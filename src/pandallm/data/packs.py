"""Reading a packs folder: memory-mapped, any step found at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.errors import BadInput
from pandallm.store import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ARRAYS = (
    "input_ids",
    "loss_mask",
    "example_ids",
    "source_ids",
    "row_offsets",
    "row_trained_tokens",
    "order",
)


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One packed row of T tokens, T <= sequence_length; no padding. Arrays are views of the files, not to be written.

    input_ids: (T,) uint16 or uint32. loss_mask: (T,) uint8, 1 where this token is a target, to be predicted from those
    before it in its example. example_ids: (T,) int32, constant over an example. source_ids: (T,) uint8.
    """

    input_ids: NDArray[Any]
    loss_mask: NDArray[np.uint8]
    example_ids: NDArray[np.int32]
    source_ids: NDArray[np.uint8]


@dataclass(frozen=True)
class Packs:
    """A packs folder as `pack_corpus` writes it. `facts` is its pack.json."""

    folder: Path
    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def open(cls, folder: Path) -> "Packs":
        """Map the arrays. Raises BadInput naming what is missing."""
        facts = read_json(folder / "pack.json")
        arrays = {}
        for name in ARRAYS:
            path = folder / f"{name}.npy"
            if not path.is_file():
                raise BadInput(f"{path} does not exist; pack the corpus again.")
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(folder, facts, arrays)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole budget."""
        return int(self.facts["steps"])

    @property
    def rows(self) -> int:
        """Stored rows."""
        return len(self.arrays["row_offsets"]) - 1

    @property
    def sequence_length(self) -> int:
        """Most tokens in a row."""
        return int(self.facts["sequence_length"])

    @property
    def batch_sequences(self) -> int:
        """Rows of a step; the last step of an `epochs` budget may have fewer."""
        return int(self.facts["batch_sequences"])

    @property
    def sources(self) -> list[str]:
        """Names that `source_ids` index."""
        return list(self.facts["sources"])

    @property
    def languages(self) -> list[str]:
        """Languages of the packed examples."""
        return list(self.facts["languages"])

    def rows_of_step(self, step: int) -> NDArray[np.int32]:
        """The rows that step `step` (0-based) reads, at most (batch_sequences,)."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        return np.asarray(self.arrays["order"][step * self.batch_sequences : (step + 1) * self.batch_sequences])

    def row(self, i: int) -> PackedRow:
        """Row i of the stored rows."""
        if not 0 <= i < self.rows:
            raise IndexError(f"row {i} of {self.rows}")
        start, end = (int(x) for x in self.arrays["row_offsets"][i : i + 2])
        return PackedRow(*(self.arrays[name][start:end] for name in ARRAYS[:4]))

    def trained_tokens_of_step(self, step: int) -> int:
        """Targets of a step: what the sum of its token losses is divided by."""
        return int(self.arrays["row_trained_tokens"][self.rows_of_step(step)].sum(dtype=np.int64))

    def tokens_of_step(self, step: int) -> int:
        """All tokens that a step reads."""
        offsets, rows = self.arrays["row_offsets"], self.rows_of_step(step).astype(np.int64)
        return int((offsets[rows + 1] - offsets[rows]).sum())


@dataclass(frozen=True)
class DecodedPiece:
    """A stretch of one example in a row, as text. example: its row in examples.parquet. spans: (text, trained), in order."""

    example: int
    id: str
    source: str
    language: str
    spans: tuple[tuple[str, bool], ...]


def decode_row(packs: Packs, row: int, tokenizer: "Tokenizer") -> list[DecodedPiece]:
    """What stands in a row, example by example. tokenizer: from `pandallm.data.tokenize.load_tokenizer`.

    A character that several tokens spell is trained where its last token is.
    """
    return [_decode(packs, piece, tokenizer) for piece in _pieces(packs.row(row))]


def decode_example(packs: Packs, example: int, tokenizer: "Tokenizer") -> list[DecodedPiece]:
    """The pieces of one packed example, in the order in which rows store them. Raises IndexError for an unknown one."""
    if not 0 <= example < int(packs.facts["examples"]):
        raise IndexError(f"example {example} of {packs.facts['examples']}")
    places = np.flatnonzero(packs.arrays["example_ids"] == example)
    offsets = packs.arrays["row_offsets"]
    rows = np.unique(np.searchsorted(offsets, places, "right") - 1)
    pieces = [piece for row in rows.tolist() for piece in _pieces(packs.row(row))]
    return [_decode(packs, piece, tokenizer) for piece in pieces if piece.example_ids[0] == example]


def _pieces(row: PackedRow) -> list[PackedRow]:
    cuts = [0, *(np.flatnonzero(np.diff(row.example_ids)) + 1).tolist(), len(row.example_ids)]
    return [
        PackedRow(row.input_ids[a:b], row.loss_mask[a:b], row.example_ids[a:b], row.source_ids[a:b])
        for a, b in pairwise(cuts)
    ]


def _decode(packs: Packs, piece: PackedRow, tokenizer: "Tokenizer") -> DecodedPiece:
    from tokenizers.decoders import DecodeStream

    stream, pending = DecodeStream(skip_special_tokens=False), list[int]()
    spans: list[tuple[str, bool]] = []

    def add(text: str, trained: bool) -> None:
        if spans and spans[-1][1] == trained:
            text = spans.pop()[0] + text
        spans.append((text, trained))

    for token, trained in zip(piece.input_ids.tolist(), piece.loss_mask.tolist(), strict=True):
        pending.append(token)
        # None: the token ends within a character.
        if (text := stream.step(tokenizer, token)) is not None:
            add(text, bool(trained))
            pending = []
    if pending:  # a cut row may end within a character
        add(tokenizer.decode(pending, skip_special_tokens=False), bool(piece.loss_mask[-1]))
    number = int(piece.example_ids[0])
    facts = _example(packs, number)
    return DecodedPiece(number, facts["id"], facts["source"], facts["language"], tuple(spans))


def _example(packs: Packs, number: int) -> dict[str, Any]:
    """One row of examples.parquet, of which only the row group that holds it is read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(packs.folder / "examples.parquet") as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < rows:
                table = file.read_row_group(group, columns=["id", "source", "language"])
                return dict(table.slice(number, 1).to_pylist()[0])
            number -= rows
    raise BadInput(f"{packs.folder / 'examples.parquet'} lacks examples; pack the corpus again.")

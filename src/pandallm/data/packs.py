"""Reading a packs folder: memory-mapped, any step found at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.errors import BadInput
from pandallm.store import read_json

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

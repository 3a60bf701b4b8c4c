"""Reading a cleaned-corpus folder: its parts are numbered Parquet files, one per shard."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pandallm.data.types import Example, Turn
from pandallm.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("examples", "held_out", "dropped")


def part_files(folder: Path, part: str = "examples") -> list[Path]:
    """The Parquet files of a part (one of PARTS), in order; a shard without such rows has none.

    Raises BadInput where the folder is no cleaned corpus.
    """
    single = folder / f"{part}.parquet"
    if single.is_file():
        return [single]
    if not (folder / part).is_dir() and not (folder / "ledger.json").is_file():
        raise BadInput(f"{folder} is no cleaned corpus: it holds no {part}; build the corpus first.")
    return sorted((folder / part).glob("*.parquet"))


def part_batches(
    folder: Path, part: str = "examples", columns: Sequence[str] | None = None, batch_rows: int = 1024
) -> Iterator["pa.RecordBatch"]:
    """The rows of a part in order, streamed as record batches of at most `batch_rows`."""
    import pyarrow.parquet as pq

    for path in part_files(folder, part):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_rows, columns=list(columns) if columns else None)


def part_rows(folder: Path, part: str = "examples") -> int:
    """How many rows a part holds."""
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(path).num_rows) for path in part_files(folder, part))


def corpus_examples(folder: Path) -> Iterator[Example]:
    """The kept examples of a cleaned corpus, in order; streamed. Raises BadInput where there is none."""
    return _examples(folder, "examples")


def held_out_examples(folder: Path) -> Iterator[Example]:
    """The examples of a cleaned corpus that are kept from training, in order; streamed."""
    return _examples(folder, "held_out")


def _examples(folder: Path, part: str) -> Iterator[Example]:
    for batch in part_batches(folder, part, ("id", "source", "language", "turns")):
        for row in batch.to_pylist():
            turns = tuple(Turn(t["text"], t["train"]) for t in row["turns"])
            yield Example(row["id"], row["source"], row["language"], turns)

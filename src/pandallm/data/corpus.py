"""Reading a cleaned-corpus folder."""

from collections.abc import Iterator
from pathlib import Path

from pandallm.data.types import Example, Turn
from pandallm.errors import BadInput


def corpus_examples(folder: Path) -> Iterator[Example]:
    """The kept examples of a cleaned corpus, in order; streamed. Raises BadInput where there is none."""
    return _examples(folder / "examples.parquet")


def held_out_examples(folder: Path) -> Iterator[Example]:
    """The examples of a cleaned corpus that are kept from training, in order; streamed."""
    return _examples(folder / "held_out.parquet")


def _examples(path: Path) -> Iterator[Example]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadInput(f"{path} does not exist; the folder is no cleaned corpus.")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1024, columns=["id", "source", "language", "turns"]):
            for row in batch.to_pylist():
                turns = tuple(Turn(t["text"], t["train"]) for t in row["turns"])
                yield Example(row["id"], row["source"], row["language"], turns)

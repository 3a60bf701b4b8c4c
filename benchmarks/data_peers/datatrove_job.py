"""The job in datatrove: filtered copies, signatures, buckets, clusters, filter. Arguments: input folder, output folder, workers."""

import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
    minhash,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import ParquetWriter

HAN = range(0x4E00, 0xA000)
minhash.load_word_tokenizer = lambda language: None  # needs spaCy, and shingles of characters need no words


class Nfkc(PipelineStep):
    name = "NFKC"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in data:
            document.text = unicodedata.normalize("NFKC", document.text)
            yield document


class CharacterSignature(MinhashDedupSignature):
    """Shingles are character 5-grams: its own split text into words."""

    def get_shingles(self, text: str) -> np.ndarray:
        hashed = self._hash_func
        return np.fromiter((hashed(text[i : i + 5]) for i in range(len(text) - 4)), np.uint64).reshape(-1, 1)


def wanted(document: Any) -> bool:
    text = document.text
    return len(text) >= 50 and sum(ord(c) in HAN for c in text) >= 0.3 * len(text)


def row(_: Any, document: Any) -> dict[str, Any]:
    return {"id": document.id, "text": document.text}


def main(source: Path, out: Path, workers: int) -> None:
    config = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
    filtered, sigs, pairs, remove = (str(out / name) for name in ("filtered", "signatures", "pairs", "remove"))
    tasks = len(list(source.glob("*.jsonl")))

    def run(name: str, steps: list[Any], n: int) -> None:
        LocalPipelineExecutor(
            pipeline=steps, tasks=n, workers=min(workers, n), logging_dir=str(out / "logs" / name)
        ).run()

    run(
        "filter",
        [
            JsonlReader(str(source)),
            Nfkc(),
            LambdaFilter(wanted),
            ParquetWriter(filtered, output_filename="${rank}.parquet", compression="zstd", adapter=row),
        ],
        tasks,
    )
    run("signatures", [ParquetReader(filtered), CharacterSignature(sigs, config=config)], tasks)
    run("buckets", [MinhashDedupBuckets(sigs, pairs, config=config)], 16)
    run("cluster", [MinhashDedupCluster(pairs, remove, config=config)], 1)
    run(
        "write",
        [
            ParquetReader(filtered),
            MinhashDedupFilter(remove),
            ParquetWriter(str(out / "kept"), output_filename="${rank}.parquet", compression="zstd", adapter=row),
        ],
        tasks,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

"""The job in Daft. Its minhash splits at blanks, so every character is followed by one; NFKC it lacks. Arguments: input folder, output folder."""

import sys
import unicodedata
from pathlib import Path

import daft
import numpy as np
from daft import DataType, col
from daft.functions import length, minhash, regexp_count, regexp_replace
from minhash_kernel import BANDS, NGRAM, ROWS, band_keys, kept


@daft.func.batch(return_dtype=DataType.string())
def nfkc(texts: daft.Series) -> list[str]:
    return [unicodedata.normalize("NFKC", t) for t in texts.to_pylist()]


def main(source: Path, out: Path) -> None:
    frame = (
        daft.read_json(str(source / "*.jsonl"))
        .with_column("text", nfkc(col("text")))
        .where(
            (length(col("text")) >= 50) & (regexp_count(col("text"), "[\u4e00-\u9fff]") >= 0.3 * length(col("text")))
        )
        .drop_duplicates("text")
        .with_column(
            "signature",
            minhash(
                regexp_replace(col("text"), "(?s)(.)", "$1 "),
                num_hashes=BANDS * ROWS,
                ngram_size=NGRAM,
                hash_function="xxhash",
            ),
        )
        .collect()
    )
    table = frame.select("id", "signature").to_arrow()
    signature = table["signature"].combine_chunks().flatten().to_numpy().reshape(len(table), BANDS * ROWS)
    ids = table["id"].to_numpy()
    order = np.argsort(ids)  # the first of a cluster is kept
    keep = ids[order][kept(band_keys(signature[order]))]
    frame.join(daft.from_pydict({"id": keep}), on="id").select("id", "text").write_parquet(str(out), compression="zstd")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

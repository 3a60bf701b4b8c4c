"""The job in Polars: read JSON lines, NFKC, filters, exact and MinHash dedup, write Parquet. Arguments: input folder, output folder."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
from minhash_kernel import band_keys, batches, kept, signatures


def main(source: Path, out: Path) -> None:
    text = pl.col("text")
    frame = (
        pl.scan_ndjson(sorted(source.glob("*.jsonl")), schema={"id": pl.Int64, "text": pl.String})
        .with_columns(text.str.normalize("NFKC"))
        .filter(text.str.len_chars() >= 50, text.str.count_matches("[\u4e00-\u9fff]") >= 0.3 * text.str.len_chars())
        .collect()
        .unique(subset="text", keep="first", maintain_order=True)
    )
    bands = np.concatenate([band_keys(signatures(b)) for b in batches(frame["text"].to_list())])
    out.mkdir(parents=True, exist_ok=True)
    frame.filter(pl.Series(kept(bands))).write_parquet(out / "kept.parquet", compression="zstd")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

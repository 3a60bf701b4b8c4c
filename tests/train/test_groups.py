"""Groups of source and language from examples.parquet."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.data.packs import Packs
from pandallm.errors import BadInput
from pandallm.train.groups import group_packs, merge
from tests.train.tiny import invented_examples, write_packs


def with_languages(folder: Path, languages: list[str | None], **columns: list[str]) -> Packs:
    """Six examples of sources even and odd, three rows of two."""
    examples = invented_examples(6)
    packs = write_packs(folder, [[0, 1], [2, 3], [4, 5]], examples, batch_sequences=1)
    table = pq.read_table(packs / "examples.parquet")
    for name, values in {"language": languages, **columns}.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    pq.write_table(table, packs / "examples.parquet", row_group_size=2)
    return Packs.open(packs)


def test_every_token_gets_its_pair_of_source_and_language(tmp_path: Path) -> None:
    languages: list[str | None] = ["zh", "zh", "en", "zh", "zh", None]
    plain = with_languages(tmp_path / "packs", languages)
    packs = group_packs(plain)
    # In the order of pack.json's sources, then of languages.
    assert packs.groups == (("even", "en"), ("even", "zh"), ("odd", ""), ("odd", "zh"))
    assert packs.sources == ["even/en", "even/zh", "odd/", "odd/zh"]
    for i in range(3):
        row, before = packs.row(i), plain.row(i)
        told = [packs.groups[g] for g in row.source_ids]
        names = [plain.sources[s] for s in before.source_ids]
        assert told == [(n, languages[e] or "") for n, e in zip(names, before.example_ids, strict=True)]
        assert all(
            np.array_equal(getattr(row, f), getattr(before, f)) for f in ("input_ids", "loss_mask", "example_ids")
        )
    assert packs.steps == plain.steps
    assert packs.row(0).source_ids.dtype == np.uint8


def test_many_groups_need_two_bytes(tmp_path: Path) -> None:
    packs = with_languages(tmp_path / "packs", ["zh"] * 6)
    count = 300
    table = pa.table(
        {"source": ["even"] * count, "language": [f"x{i:03}" for i in range(count)], "tokens": [1] * count}
    )
    pq.write_table(table, packs.folder / "examples.parquet")
    grouped = group_packs(packs)
    assert grouped.group_of_example is not None
    assert grouped.group_of_example.dtype == np.uint16
    assert grouped.group_of_example.tolist() == list(range(count))


def test_mean_context_counts_pieces_of_texts_longer_than_a_row(tmp_path: Path) -> None:
    packs = with_languages(tmp_path / "packs", ["zh"] * 6)
    table = pa.table({"source": ["even"] * 2, "language": ["zh"] * 2, "tokens": [150, 10]})
    pq.write_table(table, packs.folder / "examples.parquet")
    # Rows of 64: pieces of 64, 64, 22 and one of 10.
    assert group_packs(packs).mean_context == pytest.approx((2 * 64**2 + 22**2 + 10**2) / 160)


def test_a_table_of_other_packs_is_refused(tmp_path: Path) -> None:
    packs = with_languages(tmp_path / "packs", ["zh"] * 6, source=["even", "odd", "third", "odd", "even", "odd"])
    with pytest.raises(BadInput, match=r"names source third, pack\.json does not"):
        group_packs(packs)


def test_merge_sums_by_source_or_language() -> None:
    groups = (("a", "en"), ("a", "zh"), ("b", "zh"))
    assert merge(groups, 0, [1.0, 2.0, 4.0]) == {"a": 3.0, "b": 4.0}
    assert merge(groups, 1, [1.0, 2.0, 4.0]) == {"en": 1.0, "zh": 6.0}


def test_packs_stay_what_they_are(tmp_path: Path) -> None:
    plain = with_languages(tmp_path / "packs", ["zh"] * 6)
    assert group_packs(plain).facts is plain.facts
    assert {f.name for f in dataclasses.fields(plain)} == {"folder", "facts", "arrays"}

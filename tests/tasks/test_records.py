import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.tasks.records import read_values

CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_any_csv_that_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["", "题, 目", "A"], *rows])
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + out.getvalue().encode())
    found = list(read_values(path))
    assert [list(record.values()) for _, record in found] == rows
    text = out.getvalue()
    for (where, _), row in zip(found, rows):  # the place is the line on which the record starts
        assert where.startswith(f"{path}:")
        assert 2 <= int(where.rsplit(":", 1)[1]) <= len(text.splitlines()) + 1
        assert len(row) == 3


def test_csv_place_is_the_records_first_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('q,a\n"two\nlines",1\n\nnext,2\n', encoding="utf-8")
    assert [w.rsplit(":", 1)[1] for w, _ in read_values(path)] == ["2", "5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n3\n", r"x\.csv:3: 1 fields, but the first line names 2 columns"),
        ("a,a\n1,2\n", r"x\.csv:1: the column 'a' is named twice"),
        ('a,b\n1,"2\n', r"x\.csv:2: not valid CSV"),
    ],
)
def test_broken_csv_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        list(read_values(path))


RECORDS = [{"q": "一", "o": ["甲", "乙"]}, {"q": "二", "o": ["丙"]}]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.json.gz", "x.jsonl.zst", "x.parquet", "g.json", "one.json"])
def test_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    records = RECORDS[:1] if name == "one.json" else RECORDS
    if name == "x.parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        text = json.dumps(records, ensure_ascii=False, indent=1)
        if "jsonl" in name:
            text = "\n".join(json.dumps(r, ensure_ascii=False) for r in records)
        elif name == "g.json":  # as GAOKAO-Bench is published
            text = json.dumps({"keywords": "x", "example": records}, indent=4)
        elif name == "one.json":
            text = json.dumps(records[0], indent=2)
        pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(text.encode()))
    assert [value for _, value in read_values(path)] == records


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.csv.gz", "x.json"):
        with pytest.raises(BadInput, match="does not exist"):
            list(read_values(tmp_path / name))
        (tmp_path / name).write_bytes(b"\xff\xfe nothing")
        with pytest.raises(BadInput, match=r"cannot be read|is not UTF-8"):
            list(read_values(tmp_path / name))

"""Parquet and Arrow files to raw records."""

import datetime
import decimal
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.data.files import count_records, parse_record, plan_units, read_records, read_unit, resolve_files
from pandallm.errors import BadInput

ROWS = [
    {"id": i, "text": f"第{i}行", "turns": [{"role": "user", "content": "问"}] * (i % 3), "none": None}
    for i in range(5000)
]
READ = [{k: v for k, v in row.items() if v is not None} for row in ROWS]


def _write(path: Path, table: pa.Table, rows: int = 700) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
    elif path.name == "stream.arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)


@pytest.mark.parametrize("name", ["x.parquet", "stream.arrow", "file.arrow"])
@pytest.mark.parametrize("target", [1, 20_000, 1 << 30])
def test_units_of_a_table_hold_its_rows_once(tmp_path: Path, name: str, target: int) -> None:
    path = tmp_path / name
    _write(path, pa.Table.from_pylist(ROWS))
    units = plan_units(path, target)
    assert {1: 8, 1 << 30: 1}.get(target, len(units)) == len(units)
    got: list[Any] = []
    for unit in units:
        reader = read_unit(unit)
        records = list(reader)
        assert [r.line for r in records] == list(range(1, len(records) + 1))
        assert reader.lines == len(records) == count_records(unit)
        assert all(json.loads(r.raw) == r.record for r in records)
        got += [parse_record(r, unit.format) for r in records]
    assert got == READ
    assert [n for n, _ in read_records(path)] == list(range(1, 5001))


def test_values_that_json_does_not_know_become_text(tmp_path: Path) -> None:
    row = {
        "day": datetime.date(2026, 1, 2),
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "price": decimal.Decimal("1.50"),
        "bytes": b"\xff\x00",
        "nan": float("nan"),
        "half": 0.5,
        "list": [b"a"],
    }
    _write(tmp_path / "x.parquet", pa.Table.from_pylist([row]))
    ((_, record),) = read_records(tmp_path / "x.parquet")
    assert record.pop("nan") is None
    assert record == {
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05",
        "price": "1.50",
        "bytes": "/wA=",
        "half": 0.5,
        "list": ["YQ=="],
    }


def test_a_row_that_is_not_utf8_is_one_error(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xff\xfeb")]
    )
    _write(tmp_path / "stream.arrow", pa.table({"text": bad}))
    got = [r for _, r in read_records(tmp_path / "stream.arrow")]
    assert got == [{"text": "a"}, "a text of this row is not UTF-8", {"text": "b"}]


@pytest.mark.parametrize("name", ["x.parquet", "stream.arrow"])
def test_what_is_no_table_is_refused_before_reading(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"text, not a table" * 20)
    with pytest.raises(BadInput, match=rf"{name} is damaged or of another format"):
        plan_units(tmp_path / name)


def test_damage_inside_a_parquet_file_keeps_what_stands_before(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"text": [random.Random(i).randbytes(40).hex() for i in range(4000)]})
    pq.write_table(table, path, row_group_size=1000)
    start = pq.read_metadata(path).row_group(2).column(0).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    (unit,) = plan_units(path)
    *good, last = read_unit(unit)
    assert [r.record["text"] for r in good if r.record] == table["text"].to_pylist()[:2000]
    assert "damaged here" in str(last.error)


def test_tables_are_found_by_pattern_but_not_compressed(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.arrow", "c.parquet.gz"):
        (tmp_path / name).touch()
    assert [p.name for p in resolve_files(f"{tmp_path}/*", "w")] == ["a.parquet", "b.arrow"]


def test_null_fields_of_objects_are_left_out_and_null_elements_stay(tmp_path: Path) -> None:
    rows = [{"a": {"x": 1, "y": None}, "b": None, "c": [{"z": None}, {"z": 2}], "d": [None, 1]}, {"a": {"y": 2}}]
    _write(tmp_path / "x.parquet", pa.Table.from_pylist(rows))
    got = [r for _, r in read_records(tmp_path / "x.parquet")]
    assert got == [{"a": {"x": 1}, "c": [{}, {"z": 2}], "d": [None, 1]}, {"a": {"y": 2}}]

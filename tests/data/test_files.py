"""Files to records."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.files import RawRecord, parse_record, read_raw, read_records, resolve_files
from pandallm.errors import BadInput


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.txt", "sub/c.json.gz", ".hidden/d.jsonl", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in resolve_files(str(tmp_path), "w")] == ["a.txt", "b.jsonl", "c.json.gz"]
    assert [p.name for p in resolve_files([f"{tmp_path}/**/*.gz", f"{tmp_path}/b.jsonl"], "w")] == [
        "b.jsonl",
        "c.json.gz",
    ]
    with pytest.raises(BadInput, match=r"corpora\.c\.sources\.s\.files: .*nothing\* matches no file"):
        resolve_files(f"{tmp_path}/nothing*", "corpora.c.sources.s.files")
    with pytest.raises(BadInput, match="no known format"):
        resolve_files(str(tmp_path / "notes.md"), "w")


LINES = '{"a": 1}\n\n[1]\nnot json\n{"a": NaN}\n{"a": "茶"}'.encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_and_what_is_wrong_with_them(tmp_path: Path, suffix: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + LINES if not suffix else pack(LINES))
    got = list(read_records(path))
    assert [n for n, _ in got] == [1, 3, 4, 5, 6]
    assert got[0][1] == {"a": 1}
    assert got[4][1] == {"a": "茶"}
    assert "not a JSON object but list" in got[1][1]
    assert "column 1" in got[2][1]
    assert "NaN" in got[3][1]


def test_bad_bytes_deep_nesting_and_huge_numbers_are_errors_of_their_line() -> None:
    for raw in (b'{"a": "\xff"}', b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
        assert isinstance(parse_record(RawRecord(1, raw), ".jsonl"), str)


def test_damaged_compression_names_the_file(tmp_path: Path) -> None:
    for name, data in (("x.jsonl.gz", gzip.compress(LINES * 50)[:-20]), ("x.jsonl.zst", b"not zstd")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=f"{name} is damaged"):
            list(read_records(tmp_path / name))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), max_size=5),
    st.sampled_from([None, 1]),
)
def test_arrays_and_lines_hold_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list, indent: int | None
) -> None:
    folder = tmp_path_factory.mktemp("array")
    (folder / "a.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=True))
    (folder / "b.json").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [r for _, r in read_records(folder / "a.json")] == rows
    assert [r for _, r in read_records(folder / "b.json")] == rows


def test_a_broken_array_gives_what_came_before_and_accounts_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1},\n {"a": 2},\n {"a": oops}, {"a": 4}]')
    got = list(read_raw(tmp_path / "a.json"))
    assert [(r.line, r.error is None) for r in got] == [(1, True), (2, True), (3, False)]
    assert got[2].raw == b'{"a": oops}, {"a": 4}]'


def test_text_lines_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("一\r\n\r\n二\n".encode())
    assert list(read_records(tmp_path / "a.txt")) == [(1, {"text": "一"}), (3, {"text": "二"})]

"""Files to records."""

import gzip
import json
import pickle
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.files import (
    RawRecord,
    file_format,
    parse_record,
    plan_units,
    read_raw,
    read_records,
    read_unit,
    resolve_files,
)
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


RECORDS = [{"id": i, "text": f"第{i}行" * 20} for i in range(3000)]


def _write(path: Path, records: list, end: str = "\n") -> bytes:
    data = "".join(json.dumps(r, ensure_ascii=False) + end for r in records).encode()
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(pack(data))
    return data


def _read(path: Path, target_bytes: int) -> tuple[list, list[int]]:
    """Records of all units, and each record's line in the file."""
    records, lines, before = [], [], 0
    for unit in plan_units(path, target_bytes):
        reader = read_unit(pickle.loads(pickle.dumps(unit)))
        for raw in reader:
            records.append(parse_record(raw, unit.format))
            lines.append(before + raw.line)
        before += reader.lines
    return records, lines


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file_gives_what_stands_before_and_one_error(tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    varied = [{"id": i, "text": random.Random(i).randbytes(200).hex()} for i in range(3000)]
    _write(path, varied)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    got = [parse_record(r, ".jsonl") for r in read_unit(*plan_units(path))]
    assert got[:-1] == varied[: len(got) - 1]
    assert "damaged here" in got[-1]
    assert len(got) - 1 >= 3000 * part * 0.8 - 400  # what a block or a frame holds back is little


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_no_compressed_file_at_all_and_rubbish_in_the_middle(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(b"no such thing")
    (only,) = read_unit(*plan_units(path))
    assert "damaged here" in only.error
    _write(path, RECORDS)
    path.write_bytes(path.read_bytes() + b"rubbish")
    *good, last = read_unit(*plan_units(path))
    assert len(good) == 3000
    assert (last.line, last.error is None) == (3001, False)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_written_in_parts(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    _write(path, RECORDS)
    path.write_bytes(path.read_bytes() * 2 + (b"\0" * 50_000 if suffix == ".gz" else b""))
    assert [r for _, r in read_records(path)] == RECORDS * 2


@pytest.mark.parametrize("target", [100, 999, 50_000, 1 << 30])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_units_of_lines_cover_the_file_once(tmp_path: Path, target: int, end: str) -> None:
    path = tmp_path / "x.jsonl"
    records = RECORDS[:300]
    data = _write(path, records, end)
    got, lines = _read(path, target)
    assert got == records
    assert lines == list(range(1, 600, 2) if end == "\n\n" else range(1, 301))
    path.write_bytes(data.rstrip())  # a last line without end
    assert _read(path, target) == (records, lines)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["", "a", "茶" * 7, "\r", " ", "b" * 40]), max_size=30), st.integers(1, 60), st.booleans()
)
def test_cuts_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], target: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("cuts") / "x.txt"
    path.write_bytes(("\n".join(lines) + "\n" * ends).encode())
    whole = [(r.line, r.raw) for r in read_raw(path)]
    assert [r for _, r in whole] == [x.encode() for line in lines if (x := line.rstrip("\r")).strip()]
    before, parts = 0, []
    for unit in plan_units(path, target):
        reader = read_unit(unit)
        parts += [(before + r.line, r.raw) for r in reader]
        before += reader.lines
    assert parts == whole


def test_a_line_that_is_too_long_is_one_record_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandallm.data.lines.LINE_LIMIT", 1 << 20)
    path = tmp_path / "x.jsonl"
    long = b'{"text": "' + b"x" * (3 << 20) + b'"}'
    path.write_bytes(b'{"a": 1}\n' + long + b'\n{"a": 2}\n')
    for target in (1 << 30, 100_000):
        records, lines = _read(path, target)
        assert (records[0], records[2], lines) == ({"a": 1}, {"a": 2}, [1, 2, 3])
        assert "more than 1 MB (3 MB)" in records[1]
    raw = list(read_raw(path))[1]
    assert len(raw.raw) < 1000
    assert raw.size - len(long) in (0, 1)
    (tmp_path / "x.json").write_bytes(b'[{"a": 1}, ' + long + b"]")
    one, rest = read_raw(tmp_path / "x.json")
    assert parse_record(one, ".json") == {"a": 1}
    assert rest.error
    assert rest.size == len(long) + 1


@pytest.mark.parametrize(
    ("encoding", "told"), [("gb18030", "GB18030"), ("big5", "Big5"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16")]
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.jsonl.gz", "x.json"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, told: str, name: str) -> None:
    text = "茶樹生長在山坡上，採茶的人清早就來了。"
    text = text if encoding == "big5" else "茶树生长在山坡上，采茶的人清早就来了。"
    lines = [json.dumps({"text": text}, ensure_ascii=False)] * 3
    data = (("[" + ",".join(lines) + "]") if name == "x.json" else "\n".join(lines)).encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    kind = file_format(path)
    for unit in plan_units(path, 60):
        errors = [parse_record(r, kind) for r in read_unit(unit)]
        for error in errors:
            assert error == {"text": ""} or (told in error and "iconv" in error) or "is not UTF-8" in error, error
    assert any(told in e for _, e in read_records(path))


def test_rare_characters_do_not_hide_the_encoding() -> None:
    text = "".join(map(chr, range(0x5200, 0x5600, 3)))
    assert "GB18030" in str(parse_record(RawRecord(1, text.encode("gb18030")), ".txt"))


@given(st.lists(st.sampled_from(["café", "naïve", "résumé", "señor", "über", "déjà", "vu", "Noël"]), max_size=20))
def test_latin_text_is_not_called_chinese(words: list[str]) -> None:
    assert "iconv" not in str(parse_record(RawRecord(1, " ".join(words).encode("latin-1")), ".txt"))


def test_latin_bytes_are_not_called_chinese() -> None:
    error = parse_record(RawRecord(1, '{"text": "café au lait"}'.encode("latin-1")), ".jsonl")
    assert error == "not valid UTF-8 (byte 14)"


def test_what_no_record_may_hold() -> None:
    for raw, told in (
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": 1e999}', "infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'"text"', "not a JSON object but str"),
        (b'{"a": 1} {"a": 2}', "Extra data"),
        (b"\0" * 4096, "nothing but zero bytes"),
    ):
        error = parse_record(RawRecord(1, raw), ".jsonl")
        assert isinstance(error, str)
        assert told in error


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_an_error(raw: bytes) -> None:
    for kind in (".jsonl", ".txt"):
        assert isinstance(parse_record(RawRecord(1, raw), kind), dict | str)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.booleans())
def test_records_are_read_as_the_standard_library_reads_them(record: dict, ascii_only: bool) -> None:
    raw = json.dumps(record, ensure_ascii=ascii_only).encode()
    assert parse_record(RawRecord(1, raw), ".jsonl") == json.loads(raw)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.jsonl does not exist"):
        plan_units(tmp_path / "x.jsonl")
    with pytest.raises(BadInput, match=r"x\.parquet does not exist"):
        plan_units(tmp_path / "x.parquet")
    assert plan_units(_touch(tmp_path / "empty.jsonl")) == []


def _touch(path: Path) -> Path:
    path.touch()
    return path


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
    assert got[2].size == 22


def test_text_lines_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("一\r\n\r\n二\n".encode())
    assert list(read_records(tmp_path / "a.txt")) == [(1, {"text": "一"}), (3, {"text": "二"})]


def test_an_array_longer_than_the_window(tmp_path: Path) -> None:
    records = [{"id": i, "text": "长" * (i % 500), "list": [i, [1.5]], "q": '"],[{'} for i in range(3000)]
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(records, ensure_ascii=False, indent=1).encode()))
    assert len(plan_units(path)) == 1
    assert [r for _, r in read_records(path)] == records
    plain = tmp_path / "a.json"
    plain.write_bytes(json.dumps(records).encode()[:-100])
    *good, last = read_records(plain)
    assert [r for _, r in good] == records[: len(good)]
    assert len(good) >= 2998
    assert "broken here" in last[1]


def test_objects_over_several_lines(tmp_path: Path) -> None:
    """As MOSS publishes its conversations: one indented object a file."""
    records = [{"id": i, "chat": {"turn_1": {"Human": "问\n" * i}}} for i in range(3)]
    path = tmp_path / "one.json"
    path.write_text("\n".join(json.dumps(r, indent=4, ensure_ascii=False) for r in records))
    assert [r for _, r in read_records(path)] == records
    assert [line for line, _ in read_records(path)] == [1, 9, 17]
    path.write_text(json.dumps(records[1], indent=4) + "\n{\n  oops")
    (first, second) = read_records(path)
    assert first[1] == records[1]
    assert "object is broken here" in second[1]
    path.with_suffix(".jsonl").write_text(json.dumps(records, indent=2))
    assert [r for _, r in read_records(path.with_suffix(".jsonl"))] == records
    gz = tmp_path / "one.json.gz"
    gz.write_bytes(gzip.compress(json.dumps(records[2], indent=1).encode()))
    assert [r for _, r in read_records(gz)] == records[2:]


# ---- documents between blank lines


def _blocks(path: Path, target: int) -> list[tuple[int, bytes]]:
    found, before = [], 0
    for unit in plan_units(path, target, blocks=True):
        reader = read_unit(unit)
        found += [(before + r.line, r.raw) for r in reader]
        before += reader.lines
    return found


def test_blocks_of_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeff一。\n二。\n\n  \n三。\r\n\r\n四。".encode())
    want = [(1, "一。\n二。".encode()), (5, "三。".encode()), (7, "四。".encode())]
    for target in (1000, 5, 1):
        assert _blocks(path, target) == want
    (unit,) = plan_units(path, 1000, blocks=True)
    assert next(parse_record(r, unit.format) for r in read_unit(unit)) == {"text": "一。\n二。"}
    packed = tmp_path / "corpus.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert _blocks(packed, 1) == want
    packed.write_bytes(gzip.compress(path.read_bytes() * 2000)[:-30])
    assert "damaged here" in list(read_unit(*plan_units(packed, blocks=True)))[-1].error


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "bb", " ", "\r", "茶" * 5]), max_size=24), st.integers(1, 40), st.booleans())
def test_cuts_lose_and_repeat_no_block(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], target: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "x.txt"
    path.write_bytes(("\n".join(lines) + "\n" * ends).encode())
    whole = _blocks(path, 1 << 30)
    assert [x for _, raw in whole for x in raw.decode().split("\n")] == [x for x in lines if x.strip()]
    assert _blocks(path, target) == whole


def test_a_block_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandallm.data.lines.LINE_LIMIT", 1000)
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\n\n" + b"0123456789\n" * 300 + b"\nb\n")
    first, long, last = read_unit(*plan_units(path, blocks=True))
    assert (first.raw, last.raw, last.line) == (b"a", b"b", 304)
    assert "block of lines of more than" in str(long.error)
    assert long.size == 3300

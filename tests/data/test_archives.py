"""Members of archives to raw records."""

import gzip
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from pandallm.data.files import file_format, parse_record, plan_units, read_records, read_unit, resolve_files

MEMBERS = {
    "chat/1.json": json.dumps({"id": 1, "text": "一"}, indent=2).encode(),
    "chat/2.json": b'[{"id": 2}, {"id": 3}]',
    "lines.jsonl": b'{"id": 4}\nbroken\n{"id": 5}\n',
    "notes.txt": "一行\n".encode(),
    "._lines.jsonl": b"rubbish",
    "__MACOSX/lines.jsonl": b"rubbish",
    "read.me": b"rubbish",
}
RECORDS = [{"id": 1, "text": "一"}, {"id": 2}, {"id": 3}, {"id": 4}, None, {"id": 5}, {"text": "一行"}]


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write(path: Path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    data = tar(members)
    pack = {".gz": gzip.compress, ".tgz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(pack.get(path.suffix, bytes)(data))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.jsonl.zip"])
def test_members_are_read_in_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, MEMBERS)
    assert resolve_files(str(tmp_path), "w") == [path]
    (unit,) = plan_units(path, 10)
    reader = read_unit(unit)
    got = [parse_record(r, unit.format) for r in reader]
    assert [r if isinstance(r, dict) else None for r in got] == RECORDS
    assert "not valid JSON" in str(got[4])
    lines = [line for line, _ in read_records(path)]
    assert lines == sorted(lines)
    assert reader.lines == lines[-1]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.zst"])
def test_a_truncated_archive_gives_what_stands_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    members = {
        f"{i}.json": json.dumps({"id": i, "text": random.Random(i).randbytes(300).hex()}).encode() for i in range(400)
    }
    write(path, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *good, last = [r for _, r in read_records(path)]
    assert [r["id"] for r in good if isinstance(r, dict)] == list(range(len(good)))
    assert len(good) > 100
    assert "damaged here" in str(last)


def test_no_archive_at_all_and_a_member_in_another_encoding(tmp_path: Path) -> None:
    for name in ("a.tar", "a.zip", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"no archive" * 100)
        ((line, error),) = read_records(tmp_path / name)
        assert line == 1
        assert "damaged here" in str(error)
    write(tmp_path / "b.zip", {"x.txt": "茶".encode("gb18030") + b"\n"})
    ((_, error),) = read_records(tmp_path / "b.zip")
    assert "not valid UTF-8" in str(error)


def test_names_of_archives() -> None:
    assert file_format(Path("x/counterfactural_correction_multi_round_chat.tar.gz")) == ".tar"
    assert file_format(Path("moss-003-sft-no-tools.jsonl.zip")) == ".zip"
    assert file_format(Path("x.zip.gz")) is None

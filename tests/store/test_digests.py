"""Digests of input files are taken once, and again whenever the file may have changed."""

import os
from pathlib import Path

import pytest

from pandallm.store import FileDigests, digest_bytes
from pandallm.store import digests as module


def settled(path: Path, content: bytes, changed: int) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(changed, changed))
    return path


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest_file = module.digest_file
    monkeypatch.setattr(module, "digest_file", lambda p: (read.append(p.name), digest_file(p))[1])
    a, b = settled(tmp_path / "a", b"a", 10**18), settled(tmp_path / "b", b"b", 10**18)
    cache = tmp_path / "store/digests.json"
    expected = [digest_bytes(b"a"), digest_bytes(b"b")]
    assert FileDigests(cache).of([a, b]) == expected
    assert FileDigests(cache).of([b, a]) == expected[::-1]
    assert read == ["a", "b"]
    settled(a, b"c", 10**18 + 1)  # same size, another time
    assert FileDigests(cache).of([a, b]) == [digest_bytes(b"c"), expected[1]]
    assert read == ["a", "b", "a"]
    cache.write_text("{damaged")
    assert FileDigests(cache).of([b]) == [expected[1]]
    assert read == ["a", "b", "a", "b"]


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    """It could change again within the clock's grain, under the same time stamp and size."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    cache = FileDigests(tmp_path / "digests.json")
    before = path.stat().st_mtime_ns
    assert cache.of([path]) == [digest_bytes(b"a")]
    settled(path, b"b", before)
    assert cache.of([path]) == [digest_bytes(b"b")]

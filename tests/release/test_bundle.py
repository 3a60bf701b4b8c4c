"""Sums of a release folder, and its metadata block."""

import subprocess
from pathlib import Path

import pytest
import yaml

from pandallm.errors import BadInput, PandaError
from pandallm.release.bundle import SUMS, check_sums, citation, front_matter, read_release, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "a b.txt").write_text("one")
    (tmp_path / "run" / "二.json").write_text("{}")
    (tmp_path / ".gitattributes").write_text("of the hub")
    write_sums(tmp_path)
    return tmp_path


def test_sums_are_those_of_sha256sum(folder: Path) -> None:
    assert check_sums(folder) == 2
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=folder, check=True)


def test_what_changed_is_named(folder: Path) -> None:
    (folder / "run" / "二.json").write_text("[]")
    with pytest.raises(PandaError, match=r"二\.json is not what SHA256SUMS says"):
        check_sums(folder)
    (folder / "run" / "二.json").unlink()
    with pytest.raises(PandaError, match=r"lacks run/二\.json"):
        check_sums(folder)
    (folder / "run" / "二.json").write_text("{}")
    (folder / "new").write_text("")
    with pytest.raises(PandaError, match="new is not in SHA256SUMS"):
        check_sums(folder)


@pytest.mark.parametrize("line", ["no sum", "0" * 64 + "  ../out", "0" * 64 + "  /etc/passwd", "0" * 64 + "  .hidden"])
def test_lines_that_lead_elsewhere_are_refused(folder: Path, line: str) -> None:
    sums = folder / SUMS
    sums.write_text(sums.read_text() + line + "\n")
    with pytest.raises(PandaError, match="SHA256SUMS:3 is not a line of sums"):
        check_sums(folder)


def test_a_later_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no release folder"):
        read_release(tmp_path)
    (tmp_path / "release.json").write_text('{"format": "panda-release", "version": 2}')
    with pytest.raises(BadInput, match="version 2; this pandallm reads 1"):
        read_release(tmp_path)
    (tmp_path / "release.json").write_text("[]")
    with pytest.raises(BadInput, match=r"not the release\.json"):
        read_release(tmp_path)


def test_names_cannot_break_out_of_the_metadata() -> None:
    hostile = "x\n---\n: [&a *b"
    head = front_matter({"license": "other", "license_name": hostile})
    assert yaml.safe_load(head.removeprefix("---\n").removesuffix("---\n"))["license_name"] == hostile
    release = {
        "name": hostile,
        "kind": "model",
        "seed": 1,
        "date": "2026-01-02",
        "authors": [hostile],
        "description": hostile,
    }
    entry = yaml.safe_load(citation(release))
    assert entry["authors"] == [{"name": hostile}]
    assert entry["abstract"] == hostile

"""Data sets by id: local folders, a cache, and what cannot be had."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pandallm.data.files import plan_units, read_records, read_unit
from pandallm.data.hub import dataset_files
from pandallm.data.spec import DatasetSpec, SourceSpec
from pandallm.errors import BadInput

RECORDS = [{"instruction": f"问{i}", "input": "", "output": f"答{i}"} for i in range(2500)]
WHERE = "corpora.c.sources.s.dataset"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set folder with two splits."""
    (tmp_path / "set").mkdir()
    for split, records in (("train", RECORDS), ("test", RECORDS[:3])):
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        (tmp_path / "set" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path / "set"


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, offline and with a cache of its own."""
    library = pytest.importorskip("datasets", reason="needs pandallm[datasets]")
    library.disable_progress_bars()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return library


def records(files: tuple[Path, ...], target: int = 1 << 30) -> list[Any]:
    return [r.record for path in files for unit in plan_units(path, target) for r in read_unit(unit)]


@pytest.mark.usefixtures("datasets")
def test_a_split_of_a_folder_is_read_as_arrow_files(folder: Path) -> None:
    found = dataset_files(DatasetSpec(id=str(folder)), WHERE)
    assert found.revision is None
    assert {p.suffix for p in found.files} == {".arrow"}
    assert records(found.files) == RECORDS
    assert records(found.files, 1) == RECORDS
    assert len(plan_units(found.files[0], 1)) > 1
    both = dataset_files(DatasetSpec(id=str(folder), split="train+test"), WHERE)
    assert records(both.files) == RECORDS + RECORDS[:3]
    assert dataset_files(DatasetSpec(id=str(folder)), WHERE) == found


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": "nope"}, "could not be read .*nope.*; check config and split"),
        ({"config": "nope"}, "could not be read .*nope.*; check config and split"),
        ({"split": "train[:10]"}, r"\.split: train\[:10\] is a part of a split; take it whole and set max_records"),
        ({"id": "nobody/nothing"}, "data set nobody/nothing .*(HF_ENDPOINT|not on the hub)"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence(folder: Path, change: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        dataset_files(DatasetSpec(**{"id": str(folder), **change}), WHERE)
    assert str(caught.value).startswith(WHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("datasets")
def test_broken_data_and_code_of_a_repository(folder: Path) -> None:
    (folder / "train.jsonl").write_text('{"a": 1}\nbroken\n')
    with pytest.raises(BadInput, match="could not be read"):
        dataset_files(DatasetSpec(id=str(folder)), WHERE)
    (folder / "set.py").write_text("raise SystemExit('ran')")
    with pytest.raises(BadInput, match="read by code of its own, which is not run; name its files instead"):
        dataset_files(DatasetSpec(id=str(folder)), WHERE)


def test_without_the_library_the_sentence_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"pip install 'pandallm\[datasets\]'"):
        dataset_files(DatasetSpec(id=str(folder)), WHERE)


def test_files_of_a_folder_are_read_as_they_stand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # not needed here
    (folder / "part").mkdir()
    (folder / "part" / "more.json.gz").write_bytes(gzip.compress(b'[{"a": 1}]'))
    (folder / "README.md").write_text("#")
    found = dataset_files(DatasetSpec(id=str(folder), files=("test.jsonl", "part/*")), WHERE)
    assert [p.name for p in found.files] == ["more.json.gz", "test.jsonl"]
    assert [r for _, r in read_records(found.files[1])] == RECORDS[:3]
    with pytest.raises(BadInput, match=r"\.files: nothing\* matches no file"):
        dataset_files(DatasetSpec(id=str(folder), files=("test.jsonl", "nothing*")), WHERE)
    with pytest.raises(BadInput, match=r"README\.md of .* is of no known format"):
        dataset_files(DatasetSpec(id=str(folder), files="*"), WHERE)


def test_files_of_the_hub_come_from_a_snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, **more: Any) -> str:
        asked.update(more, repo=repo)
        return str(folder.rename(folder.parent / commit))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = dataset_files(DatasetSpec(id="BAAI/COIG", files="*.jsonl"), WHERE)
    assert (len(found.files), found.revision) == (2, commit)
    assert asked == {"repo": "BAAI/COIG", "repo_type": "dataset", "revision": None, "allow_patterns": ["*.jsonl"]}


def test_a_plain_text_is_the_id() -> None:
    source = SourceSpec.model_validate({"adapter": "alpaca", "dataset": "a/b"})
    assert source.dataset == DatasetSpec(id="a/b")

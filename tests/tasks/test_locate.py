import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.tasks.load import load_task
from pandallm.tasks.locate import cache_folder, digest_of, find, locate, split_of, with_split_of
from pandallm.tasks.open import open_task
from pandallm.tasks.spec import TaskSpec
from tests.tasks.records import write_records


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_TASKS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return folder


def names(files: list[Path]) -> list[str]:
    return [f.name for f in files]


def task(**fields: Any) -> TaskSpec:
    base = {"name": "t", "reader": "mcq", "split": "test", "prompts": {"p": {"template": "a"}}, "source": "the web"}
    return TaskSpec.model_validate({**base, "patterns": {"test": ["q.jsonl"], "dev": ["d.jsonl"]}, **fields})


def test_a_file_and_a_glob_are_taken_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "other.json", "b.jsonl")
    assert names(locate(task(), tmp_path / "other.json")) == ["other.json"]
    assert names(locate(task(), f"{tmp_path}/*.json*")) == ["b.jsonl", "other.json"]
    with pytest.raises(BadInput, match=r"nothing\* \(for task t\) matches no file"):
        locate(task(), f"{tmp_path}/nothing*")


def test_published_names_are_found_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x/c3-m-test.json", "x/c3-d-test.json", "c3_dev.jsonl.zst", ".hidden/c3-m-train.json")
    touch(tmp_path, "x/q.jsonl", "x/q.jsonl.gz")
    assert names(locate(load_task("c3-m"), tmp_path)) == ["c3-m-test.json"]
    assert names(locate(load_task("c3-d:dev"), tmp_path)) == ["c3_dev.jsonl.zst"]
    assert names(locate(task(), tmp_path)) == ["q.jsonl"]  # no copy is read twice
    with pytest.raises(
        BadInput, match=r"does not have the train split of c3-m\. It has the test split: use --tasks c3-m:"
    ):
        locate(load_task("c3-m:train"), tmp_path)


def test_a_folder_without_any_of_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"does not have the val split of ceval\. Fetch it with --download, or put"):
        locate(load_task("ceval"), tmp_path)
    with pytest.raises(BadInput, match="The test split of c3-m is not here; fetch it with --download"):
        locate(load_task("c3-m"))
    with pytest.raises(BadInput, match=re.escape("put q.jsonl into a folder and name it with --data; source: the web")):
        locate(task(), download=True)
    bare = task(patterns={}, split="")
    with pytest.raises(BadInput, match=re.escape("give its file with --data (the web)")):
        locate(bare)
    with pytest.raises(BadInput, match="has no question files"):
        locate(bare, tmp_path)
    touch(tmp_path, "a.csv", "b.md", "c.json.gz")
    assert names(locate(bare, tmp_path)) == ["a.csv", "c.json.gz"]


def test_parts_that_belong_together_must_all_be_there(tmp_path: Path) -> None:
    folder = write_records("agieval-zh", tmp_path)
    assert len(locate(load_task("agieval-zh"), folder)) == 10
    (folder / "data" / "v1" / "jec-qa-kd.jsonl").unlink()
    with pytest.raises(
        BadInput, match=r"only some of the files of test split of agieval-zh; jec-qa-kd\.jsonl is missing"
    ):
        locate(load_task("agieval-zh"), folder)


def test_the_split_is_what_the_files_names_tell(tmp_path: Path) -> None:
    c3 = load_task("c3-m")
    assert split_of(c3, [Path("a/c3-m-dev.json")]) == "dev"
    assert split_of(c3, [Path("c3_train.jsonl.zst")]) == "train"
    assert split_of(c3, [Path("mine.json")]) == ""
    assert split_of(c3, [Path("c3-m-dev.json"), Path("c3-m-test.json")]) == ""
    assert with_split_of(c3, [Path("c3_dev.jsonl")]).split == "dev"
    assert with_split_of(c3, [Path("mine.json")]).split == ""
    assert split_of(load_task("cmmlu"), [Path("data/test/a.csv"), Path("data/test/b.csv")]) == "test"


def test_files_of_the_task_come_before_the_cache(tmp_path: Path, cache: Path) -> None:
    touch(cache / "t", "q.jsonl")
    touch(tmp_path, "own.jsonl")
    assert locate(task()) == [cache / "t" / "q.jsonl"]
    assert names(locate(task(files=str(tmp_path / "own.jsonl")))) == ["own.jsonl"]
    assert names(locate(task(files="${world}/own.jsonl"))) == ["q.jsonl"]
    assert cache_folder() == cache


def test_download_is_kept_and_used_offline_afterwards(tmp_path: Path, cache: Path) -> None:
    source = touch(tmp_path / "web", "q.jsonl") / "q.jsonl"
    t = task(urls={"test": [source.as_uri()]}, sha256={"test": hashlib.sha256(b"q.jsonl").hexdigest()})
    assert locate(t, download=True) == [cache / "t" / "q.jsonl"]
    source.unlink()
    assert locate(t) == locate(t, download=True) == [cache / "t" / "q.jsonl"]
    assert [p.name for p in (cache / "t").iterdir()] == ["q.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": {"test": "0" * 64}}, "is not what was published: sha256"),
        ({"patterns": {"test": ["z.jsonl"]}}, "has no test split of t; its publisher may have moved it"),
    ],
)
def test_a_wrong_download_leaves_nothing(tmp_path: Path, cache: Path, change: dict[str, Any], message: str) -> None:
    source = touch(tmp_path / "web", "q.jsonl") / "q.jsonl"
    with pytest.raises(BadInput, match=message):
        locate(task(urls={"test": [source.as_uri()]}, **change), download=True)
    assert list((cache / "t").iterdir()) == []


def test_an_address_that_does_not_answer(tmp_path: Path, cache: Path) -> None:
    for url in ((tmp_path / "gone.jsonl").as_uri(), "http://127.0.0.1:9/q.jsonl"):
        with pytest.raises(
            BadInput, match=r"cannot be fetched .* get the file yourself and name its folder with --data"
        ):
            locate(task(urls={"test": [url]}), download=True)
    with pytest.raises(BadInput, match="is no address of a file"):
        locate(task(urls={"test": ["ftp://a/q.jsonl"]}), download=True)
    assert list((cache / "t").iterdir()) == []


def test_the_hub_offline_is_told(cache: Path) -> None:
    # conftest sets HF_HUB_OFFLINE
    with pytest.raises(BadInput, match=r"The data set ceval/ceval-exam cannot be fetched from the hub .*HF_ENDPOINT"):
        locate(load_task("ceval"), download=True)
    assert list((cache / "ceval").iterdir()) == []


def test_an_archive_is_unpacked_and_only_the_published_names(tmp_path: Path, cache: Path) -> None:
    records = write_records("cmmlu", tmp_path / "records")
    archive = tmp_path / "master.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(records.rglob("*.csv")):
            z.write(path, f"CMMLU-abc/{path.relative_to(records)}")
        z.writestr("CMMLU-abc/README.md", "x")
    files = sorted((records / "data" / "test").iterdir())
    cmmlu = load_task("cmmlu").model_copy(
        update={"urls": {"test": (archive.as_uri(),)}, "sha256": {"test": digest_of(files)}}
    )
    found = locate(cmmlu, download=True)
    assert [p.read_bytes() for p in found] == [p.read_bytes() for p in files]
    assert sorted(p.name for p in cache.rglob("*") if p.is_file()) == ["river_geography.csv", "tea_culture.csv"]
    task_here, read = open_task("cmmlu")
    assert task_here.split == "test"
    assert len(read.questions) == 3


def test_hostile_and_torn_archives(tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("../../q.jsonl", "x")
    with pytest.raises(BadInput, match="holds a file outside of its folder"):
        locate(task(urls={"test": [archive.as_uri()]}), download=True)
    archive.write_bytes(b"PK nothing")
    with pytest.raises(BadInput, match=r"a\.zip cannot be unpacked"):
        locate(task(urls={"test": [archive.as_uri()]}), download=True)
    assert not find(task(), [tmp_path])


def test_digest_of_several_files_depends_on_names_and_bytes(tmp_path: Path) -> None:
    one, two = (touch(tmp_path, "a", "b") / n for n in "ab")
    assert digest_of([one]) == hashlib.sha256(b"a").hexdigest()
    both = digest_of([one, two])
    assert both != digest_of([one, one])
    two.write_text("c")
    assert digest_of([one, two]) != both

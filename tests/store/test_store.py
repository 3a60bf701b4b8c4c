from pathlib import Path

import pytest

from pandallm.errors import PandaError
from pandallm.store import Store, read_json


def make(store: Store, settings: object = 1, content: str = "x", log: str = "t") -> str:
    with store.begin("stage", 1, settings, {"in": "d"}) as work:
        (work.folder / "out.txt").write_text(content)
        (work.folder / "logs").mkdir(exist_ok=True)
        (work.folder / "logs" / "seconds.txt").write_text(log)
        (work.folder / ".scratch").mkdir(exist_ok=True)
        return work.commit({"n": 1}).digest


def test_key_depends_on_stage_version_settings_inputs_only(tmp_path: Path) -> None:
    keys = {
        Store.key("a", 1, {"x": 1}, {"i": "d"}),
        Store.key("b", 1, {"x": 1}, {"i": "d"}),
        Store.key("a", 2, {"x": 1}, {"i": "d"}),
        Store.key("a", 1, {"x": 2}, {"i": "d"}),
        Store.key("a", 1, {"x": 1}, {"i": "e"}),
    }
    assert len(keys) == 5
    assert Store.key("a", 1, {"x": 1, "y": 2}, {}) == Store.key("a", 1, {"y": 2, "x": 1}, {})


def test_committed_artifact_is_found_and_its_digest_is_of_its_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = make(store)
    found = store.find(Store.key("stage", 1, 1, {"in": "d"}))
    assert found is not None
    assert found.digest == digest
    assert found.manifest["facts"] == {"n": 1}
    assert not (found.path / ".scratch").exists()
    assert read_json(found.path / "manifest.json")["files"]["out.txt"]["bytes"] == 1
    # Other settings, same bytes (timings differ): what follows sees the same input.
    assert make(store, settings=2, log="other") == digest
    assert make(store, settings=3, content="y") != digest


def test_uncommitted_work_is_not_found_and_can_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.begin("stage", 1, 1, {}) as work:
        (work.folder / "half").write_text("1")
        raise RuntimeError("killed")
    key = Store.key("stage", 1, 1, {})
    assert store.find(key) is None
    with store.begin("stage", 1, 1, {}) as work:
        assert (work.folder / "half").read_text() == "1"
        work.clear()
        assert not list(work.folder.iterdir())


def test_a_death_in_the_commit_leaves_what_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as broken:
        broken.setattr("pandallm.store.store.os.replace", die)
        broken.setattr("pandallm.store.store.write_json", lambda path, value: path.write_text("{}"))
        with pytest.raises(RuntimeError, match="killed"):
            make(store)
    with store.begin("stage", 1, 1, {"in": "d"}) as work:
        assert (work.folder / ".scratch").is_dir()
        (work.folder / ".scratch" / "checkpoint").write_text("")
        artifact = work.commit()
    assert sorted(p.name for p in artifact.path.iterdir()) == ["logs", "manifest.json", "out.txt"]
    assert sorted(artifact.manifest["files"]) == ["logs/seconds.txt", "out.txt"]


def test_a_folder_without_manifest_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = Store.key("stage", 1, 1, {"in": "d"})
    (tmp_path / "artifacts" / key).mkdir(parents=True)
    (tmp_path / "artifacts" / key / "torn").write_text("")
    make(store)
    found = store.find(key)
    assert found is not None
    assert not (found.path / "torn").exists()


def test_two_processes_cannot_make_the_same_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.begin("stage", 1, 1, {}):
        other = Store(tmp_path)
        with pytest.raises(PandaError, match="Another process"), other.begin("stage", 1, 1, {}):
            pass

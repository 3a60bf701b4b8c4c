"""Uploading to a hub on localhost."""

import socket
from pathlib import Path

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.release.bundle import write_sums
from pandallm.release.hub import check_repo, push_folder
from pandallm.store import write_json
from tests.release.hub_server import hub
from tests.release.release_helpers import files

TOKEN = "hf_" + "x" * 34


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "release"
    write_json(out / "release.json", {"format": "panda-release", "version": 1, "kind": "data"})
    (out / "README.md").write_text("# 风筝\n")
    (out / "panda_delta-00001-of-00001.safetensors").write_bytes(bytes(range(256)) * 50)
    (out / "run").mkdir()
    (out / "run" / "scores.json").write_text("{}")
    (out / ".lock").write_text("")
    write_sums(out)
    return out


@pytest.mark.parametrize(("kind", "place"), [("model", "/api/models/"), ("data", "/api/datasets/")])
def test_every_file_arrives_as_it_is(folder: Path, kind: str, place: str) -> None:
    with hub() as server:
        url = push_folder(folder, "someone/kite", kind, endpoint=server.endpoint, token=TOKEN, private=True)
    assert url.endswith("/commit/abc")
    assert len(server.commits) == 1
    assert server.commits[0].startswith(place)
    assert server.created[0]["name"] == "kite"
    assert server.created[0].get("private") is True or server.created[0].get("visibility") == "private"
    sent = dict(files(folder))
    del sent[".lock"]
    assert server.files == sent


def test_a_damaged_folder_is_not_sent(folder: Path) -> None:
    (folder / "README.md").write_text("changed")
    with hub() as server, pytest.raises(PandaError, match="sha256 differs"):
        push_folder(folder, "someone/kite", "model", endpoint=server.endpoint, token=TOKEN)
    assert not server.created


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "", "does not know your login|cannot see it"),
        (403, "", "may not write to someone/kite"),
        (403, "GatedRepo", "is gated: accept its conditions"),
        (500, "", "refused the upload"),
    ],
)
def test_refusals_are_one_sentence(
    folder: Path, status: int, code: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(status, code) as server:
        with pytest.raises(PandaError, match=sentence) as e:
            push_folder(folder, "someone/kite", "model", endpoint=server.endpoint, token=TOKEN)
    assert "\n" not in str(e.value)


def test_no_server_is_told(folder: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(PandaError, match="could not be reached"):
        push_folder(folder, "someone/kite", "model", endpoint=f"http://127.0.0.1:{port}", token=TOKEN)


@pytest.mark.parametrize("name", ["kite", "a/b/c", "../x", "a/..", "", "a b/c"])
def test_names_that_are_no_repository(name: str) -> None:
    with pytest.raises(BadInput, match="OWNER/NAME"):
        check_repo(name)


def test_modelscope_is_asked_through_its_own_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    calls: list[tuple[str, ...]] = []

    class HubApi:
        def repo_exists(self, repo_id: str, repo_type: str) -> bool:
            return False

        def create_repo(self, repo_id: str, repo_type: str, *, visibility: str) -> None:
            calls.append(("create", repo_id, repo_type, visibility))

        def upload_folder(self, repo_id: str, repo_type: str, folder_path: Path, **options: object) -> None:
            if repo_id == "someone/refused":
                raise RuntimeError("no such login\nmore")
            calls.append(("upload", repo_id, repo_type, str(folder_path)))

    module = types.ModuleType("modelscope_hub")
    module.HubApi = HubApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope_hub", module)
    check_repo("modelscope:someone/kite")
    url = push_folder(folder, "modelscope:someone/kite", "data", private=True)
    assert url == "https://modelscope.cn/datasets/someone/kite"
    assert calls == [
        ("create", "someone/kite", "dataset", "private"),
        ("upload", "someone/kite", "dataset", str(folder)),
    ]
    with pytest.raises(PandaError, match=r"ModelScope refused .* \(no such login\)"):
        push_folder(folder, "modelscope:someone/refused", "model")
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(BadInput, match="pip install modelscope-hub"):
        push_folder(folder, "modelscope:someone/kite", "model")

"""Names of folders and of models on hubs; a hub is played by a server on this machine."""

import json
import shutil
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.release.fetch import locate
from tests.release.release_helpers import files

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Model repositories `owner/name` from folders; `owner/gated` is gated."""

    repositories: dict[str, Path]
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        name = "/".join(parts[:2])
        if name == "owner/gated":
            return self._send(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="accept it")
        folder = self.server.repositories.get(name)
        if folder is None:
            return self._send(404, b"{}", X_Error_Code="RepoNotFound")
        if path.startswith("api/") and "tree" in parts:
            rows = [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in files(folder).items()]
            return self._send(200, json.dumps(rows).encode(), Content_Type="application/json")
        if path.startswith("api/"):
            if parts[-1] not in ("main", COMMIT, name.split("/")[1]):
                return self._send(404, b"{}", X_Error_Code="RevisionNotFound")
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files(folder)], "private": False}
            return self._send(200, json.dumps(info).encode(), Content_Type="application/json")
        file = folder.joinpath(*parts[4:])
        if not file.is_file():
            return self._send(404, b"", X_Error_Code="EntryNotFound")
        data = file.read_bytes()
        etag = f'"{abs(hash(data)):x}"'
        return self._send(200, data, ETag=etag, X_Repo_Commit=COMMIT)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub(("127.0.0.1", 0), Handler)
    server.repositories, server.asked = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_folder_is_taken_as_it_is(base: Path) -> None:
    assert locate(str(base), "Base") == base


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "../x", "a b/c"])
def test_neither_folder_nor_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="does not exist; give a folder, or a hub id"):
        locate(name, "Base")


def test_model_from_a_hub_without_its_other_formats(base: Path, tmp_path: Path, hub: Hub) -> None:
    repository = shutil.copytree(base, tmp_path / "repository")
    for other in ("model.gguf", "pytorch_model.bin", "tf_model.h5"):
        (repository / other).write_bytes(b"large")
    hub.repositories["owner/name"] = repository
    assert files(locate("owner/name", "Base")) == files(base)
    assert files(locate("owner/name@main", "Base")) == files(base)
    assert not any(path.endswith((".gguf", ".bin", ".h5")) for path in hub.asked)


def test_model_with_torch_files_only(base: Path, tmp_path: Path, hub: Hub) -> None:
    from tests.release.test_sources import as_torch

    hub.repositories["owner/name"] = as_torch(base, tmp_path / "repository", 2)
    assert files(locate("owner/name", "Base")) == files(tmp_path / "repository")


def test_delta_from_a_hub(delta: Path, hub: Hub) -> None:
    hub.repositories["owner/delta"] = delta
    assert files(locate("owner/delta", "Delta")) == files(delta)


def test_what_a_hub_refuses_is_a_sentence(base: Path, hub: Hub) -> None:
    hub.repositories["owner/name"] = base
    with pytest.raises(BadInput, match=r"Base owner/gated is gated: accept its licence .* `hf auth login`"):
        locate("owner/gated", "Base")
    with pytest.raises(BadInput, match="does not exist or is private"):
        locate("owner/unknown", "Base")
    with pytest.raises(BadInput, match="has no revision v9"):
        locate("owner/name@v9", "Base")


def test_hub_out_of_reach(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"could not be downloaded \(.*set HF_ENDPOINT to a mirror"):
        locate("owner/name", "Base")


def test_modelscope(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(BadInput, match="pip install modelscope"):
        locate("modelscope:owner/name", "Base")
    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        if name == "owner/lost":
            raise RuntimeError("no such model")
        return str(base)

    fake = types.ModuleType("modelscope")
    monkeypatch.setattr(fake, "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    assert locate("modelscope:owner/name@v1", "Base") == base
    assert asked == [("owner/name", "v1")]
    with pytest.raises(BadInput, match=r"could not be downloaded \(no such model\)"):
        locate("modelscope:owner/lost", "Base")

from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.evaluate import parallel, server, vllm
from pandallm.evaluate.backends import close, open_backend
from pandallm.evaluate.local import LocalBackend


class Recorded:
    """Stands for a backend that is costly to open; remembers what it was opened with."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.args, self.more, self.closed = args, more, False

    def close(self) -> None:
        self.closed = True


def test_one_device_is_this_process(model_folder: Path) -> None:
    backend = open_backend("local", str(model_folder), devices=["cpu"])
    assert isinstance(backend, LocalBackend)
    close(backend)  # nothing to end


def test_several_devices_are_several_processes(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ParallelBackend", Recorded)
    backend: Any = open_backend("local", str(model_folder), devices=["cpu", "cpu"], batch_tokens=512, threads=1)
    factory, devices = backend.args
    assert devices == ["cpu", "cpu"]
    assert backend.more == {"threads": 1, "chunk_size": 1024}
    assert isinstance(factory("cpu"), LocalBackend)
    close(backend)
    assert backend.closed


def test_servers_and_vllm_get_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ServerBackend", Recorded)
    monkeypatch.setattr(vllm, "VllmBackend", Recorded)
    backend: Any = open_backend("server", "m", url="http://h/v1", chat=True, concurrency=3)
    assert backend.args == ("http://h/v1", "m")
    assert (backend.more["chat"], backend.more["concurrency"]) == (True, 3)
    backend = open_backend("vllm", "folder", devices=["cuda:0", "cuda:1"], dtype="bfloat16")
    assert backend.args == (Path("folder"),)
    assert backend.more == {"dtype": "bfloat16", "devices": ["cuda:0", "cuda:1"]}


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("server", {}, "needs the server's address"),
        ("local", {"url": "http://h/v1"}, "use --backend server"),
        ("tgi", {}, "unknown; use local, vllm, server"),
        ("local", {"devices": ()}, "--device is empty"),
    ],
)
def test_settings_that_do_not_belong_together(kind: str, more: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        open_backend(kind, "m", **more)

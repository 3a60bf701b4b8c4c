"""A hub on localhost: creates repositories and takes commits with small and large (LFS) files, as the client sends them."""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Hub:
    """What the server was given. `refuse`: status of every answer, with an `X-Error-Code` where it is a pair."""

    def __init__(self, refuse: int = 0, code: str = "") -> None:
        self.refuse, self.code = refuse, code
        self.created: list[dict[str, Any]] = []
        self.large: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.endpoint = ""

    def answer(self, path: str, body: bytes) -> Any:
        if path.endswith("/repos/create"):
            self.created.append(json.loads(body))
            return {"url": f"{self.endpoint}/someone/kite"}
        if "/preupload/" in path:
            return {
                "files": [
                    {"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [self._object(o) for o in json.loads(body)["objects"]]}
        if path.startswith("/lfs/"):
            self.large[path.removeprefix("/lfs/")] = body
        if "/commit/" in path:
            self.commits.append(path)
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.large[value["oid"]]
            return {
                "success": True,
                "commitUrl": f"{self.endpoint}/someone/kite/commit/abc",
                "commitOid": "abc",
                "hookOutput": "",
            }
        return {}

    def _object(self, o: dict[str, Any]) -> dict[str, Any]:
        return {**o, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{o['oid']}", "header": {}}}}


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".parquet")) else "regular"


@contextmanager
def hub(refuse: int = 0, code: str = "") -> Iterator[Hub]:
    """A running hub; it ends with the block."""
    state = Hub(refuse, code)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _go(self) -> None:
            body = self._body()
            content = json.dumps({} if state.refuse else state.answer(self.path, body)).encode()
            self.send_response(state.refuse or 200)
            if state.code:
                self.send_header("X-Error-Code", state.code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _go

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()

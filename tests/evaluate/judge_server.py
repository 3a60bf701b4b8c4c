"""A small OpenAI-compatible server in a thread, which answers as a test's function says."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

#: Request body -> (HTTP status, reply's text or a whole body).
Reply = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def judge_server(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields (base URL, requests so far: body, path, authorization)."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"body": body, "path": self.path, "authorization": self.headers.get("Authorization")})
            status, text = reply(body)
            whole = (
                {"choices": [{"message": {"role": "assistant", "content": text}}]} if isinstance(text, str) else text
            )
            data = json.dumps(whole).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

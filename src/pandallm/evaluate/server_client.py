"""HTTP to an OpenAI-compatible server: keys, retries with back-off, errors in one sentence."""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pandallm.errors import BadInput, PandaError

#: Longest wait before a further try, whatever the server asks for.
LONGEST_WAIT = 120.0
#: Statuses after which the same request may succeed; other errors are final.
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}


class Refused(Exception):
    """The server answered with an error that trying again will not change."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message

    @property
    def too_long(self) -> bool:
        """Whether the prompt did not fit the model's window (servers say so in words only)."""
        return self.status in (400, 413, 422, 500) and bool(
            re.search(r"context (?:length|size|window)|too long|max_model_len|maximum.{0,30}tokens", self.message, re.I)
        )


class Unanswered(PandaError):
    """The server stayed away through all tries."""


class Client:
    """Requests below `url` (such as http://localhost:8000/v1); may be used from many threads.

    The key is read from the environment variable `api_key_env` and sent as a bearer token; it is never shown. `retries`
    further tries follow a failure that may pass, `backoff` seconds after the first, twice as long after each, or as long
    as the server's Retry-After says. `say` is told once per wait.

    Raises BadInput for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str,
        timeout: float,
        retries: int,
        backoff: float,
        say: Callable[[str], None],
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"--server {url} is no address: give one such as http://localhost:8000/v1.")
        if parts.username or parts.password:
            raise BadInput(
                f"--server holds a name or password for {parts.hostname}: leave them out and put the key into {api_key_env}."
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        for ending in ("/chat/completions", "/completions"):
            self.url = self.url.removesuffix(ending)
        self.api_key_env, self.timeout, self.retries, self.backoff, self.say = (
            api_key_env,
            timeout,
            retries,
            backoff,
            say,
        )
        self._key = os.environ.get(api_key_env, "")
        self._lock, self._stopped, self._told = threading.Lock(), threading.Event(), 0.0
        self._http: Any = None

    def get(self, path: str, retries: int | None = None) -> Any:
        """JSON of a GET request. Raises Refused or Unanswered."""
        return self._ask("GET", path, None, self.retries if retries is None else retries, PASSING)

    def post(self, path: str, body: Mapping[str, Any], passing: set[int] = PASSING) -> Any:
        """JSON of a POST request. Raises Refused or Unanswered; `passing`: statuses that are tried again."""
        return self._ask("POST", path, body, self.retries, passing)

    def give_up(self) -> None:
        """No further tries: waits end and raise Unanswered; requests under way may still be answered."""
        self._stopped.set()

    def stop(self) -> None:
        """`give_up`, and requests under way end, too."""
        self.give_up()
        self.close()

    def restart(self) -> None:
        """Allow requests again after `stop`."""
        self._stopped.clear()

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def _connection(self) -> Any:
        import httpx2

        with self._lock:
            if self._http is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                # The pool must not be what limits concurrency.
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
                # Without TLS there is nothing to verify, and the certificates take half a second to load.
                tls = self.url.startswith("https")
                self._http = httpx2.Client(headers=headers, timeout=self.timeout, limits=limits, verify=tls)
            return self._http

    def _ask(self, method: str, path: str, body: Any, retries: int, passing: set[int]) -> Any:
        import httpx2

        for attempt in range(retries + 1):
            if self._stopped.is_set():
                raise Unanswered(f"The requests to {self.url} were given up.")
            asked_to_wait = None
            try:
                reply = self._connection().request(method, self.url + path, json=body)
                if reply.is_success:
                    return reply.json()
                problem = f"HTTP {reply.status_code}: {self._message(reply)}"
                if reply.status_code not in passing:
                    raise Refused(reply.status_code, self._message(reply))
                asked_to_wait = retry_after(reply.headers.get("retry-after"))
            except httpx2.TimeoutException:
                problem = f"no answer within {self.timeout:g} s"
            except (httpx2.HTTPError, RuntimeError) as e:  # RuntimeError: closed by `stop`
                problem = self._hide(str(e)) or type(e).__name__
            except ValueError:
                problem = "an answer that is not JSON"
            if attempt < retries:
                wait = min(LONGEST_WAIT, max(self.backoff * 2**attempt, asked_to_wait or 0.0))
                self._tell(f"{self.url}: {problem}; trying again in {wait:.0f} s ({attempt + 1} of {retries}).", wait)
                self._stopped.wait(wait)
        tries = f" after {retries + 1} tries" if retries else ""
        raise Unanswered(f"The server at {self.url} does not answer{tries} ({problem})")

    def _tell(self, text: str, wait: float) -> None:
        # Many requests wait at once; one line stands for all of them.
        with self._lock:
            fresh, self._told = time.monotonic() >= self._told, max(self._told, time.monotonic() + 0.9 * wait)
        if fresh and not self._stopped.is_set():
            self.say(text)

    def _message(self, reply: Any) -> str:
        try:
            said = reply.json()
        except ValueError:
            said = reply.text
        for name in ("error", "message", "detail"):
            if isinstance(said, dict) and name in said:
                said = said[name]
        return self._hide(" ".join(str(said).split())[:300]) or "no reason given"

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (a number or a date; RFC 9110, 10.2.3); None where there is none to read."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None

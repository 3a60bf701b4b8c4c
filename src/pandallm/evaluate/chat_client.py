"""What the judge needs of an OpenAI-compatible server: one reply to a list of messages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.server_client import Client, Refused, Unanswered

#: Environment variable with the server's key.
KEY_VARIABLE = "OPENAI_API_KEY"
TIMEOUT_SECONDS = 300.0


class ChatClient:
    """Asks `model` behind `url` (such as http://localhost:8000/v1) at temperature 0. May be used from many threads."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        max_tokens: int,
        retries: int = 6,
        backoff: float = 1.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.max_tokens = model, max_tokens
        try:
            self._client = Client(
                url, api_key_env=KEY_VARIABLE, timeout=TIMEOUT_SECONDS, retries=retries, backoff=backoff, say=say
            )
        except BadInput as e:
            raise BadInput(str(e).replace("--server", "--judge")) from None
        self._failed: PandaError | None = None  # why one thread gave up is why the others do

    @property
    def url(self) -> str:
        return self._client.url

    def close(self) -> None:
        """Close the connections."""
        self._client.stop()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The reply's text; None where the messages are too long for the model.

        Raises PandaError where the server stays away, BadInput where it refuses; no request is sent after that.
        """
        try:
            return _content(self._post(messages), self.url)
        except Refused as e:
            if e.too_long:
                return None
            raise self._give_up(
                BadInput(
                    f"The server at {self.url} refused a request for {self.model!r} (HTTP {e.status}: {e.message}): check "
                    f"--judge, --judge-model and the key in {KEY_VARIABLE}."
                )
            ) from None
        except Unanswered as e:
            raise self._give_up(PandaError(f"{e}. What it answered is kept: run again to go on.")) from None

    def _give_up(self, error: PandaError) -> PandaError:
        if self._failed is None:
            self._failed = error
            self._client.stop()
        return self._failed

    def _post(self, messages: Sequence[Mapping[str, str]]) -> Any:
        body = {"model": self.model, "messages": [dict(m) for m in messages], "temperature": 0}
        try:
            return self._client.post("/chat/completions", body | {"max_tokens": self.max_tokens})
        except Refused as e:
            # OpenAI's newer models know the limit under another name only.
            if "max_completion_tokens" not in e.message:
                raise
            return self._client.post("/chat/completions", body | {"max_completion_tokens": self.max_tokens})


def _content(reply: Any, url: str) -> str:
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise BadInput(f"{url} sent no choices[0].message.content: it is not an OpenAI-compatible server.") from None
    return content if isinstance(content, str) else ""  # null: the model said nothing

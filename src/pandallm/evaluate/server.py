"""Any OpenAI-compatible server as a backend: generation, and log-probabilities where it offers them.

Two ways to log-probabilities, tried once when first needed:
- *echo*: `/completions` with `echo` and `logprobs` gives the log-probability of every token of the prompt. Each option is
  one request; its score is the sum over its tokens (see `continuation_score`).
- *letters*: the most likely first tokens of an answer (`logprobs` or `top_logprobs`). Only prompts that score a letter
  can be scored, and only questions all of whose letters are among those tokens; the others have no scores.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Literal, TypeVar

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.backend import Answered, Asked, Scored
from pandallm.evaluate.encode import shorten
from pandallm.evaluate.server_client import PASSING, Client, Refused, Unanswered
from pandallm.evaluate.server_logprobs import (
    Echo,
    continuation_score,
    letter_scores,
    read_echo,
    read_generated,
    read_top,
)
from pandallm.progress import SILENT, Progress
from pandallm.tasks.types import LETTERS

#: Where completions end early: beginnings of a next question, which `extract` ignores anyhow. Servers take four at most.
STOPS = ("\n问题：", "\n问题:", "\n阅读下面的", "\nQuestion:")
#: How many of the most likely tokens are asked for; OpenAI's limit is 20 for chat and 5 for completions.
TOP_TOKENS = (20, 5)

#: Texts on which echoed log-probabilities are compared with generated ones, and how far they may differ: another kernel's
#: rounding in half precision, or quantised.
PROBES = ("one two three four", "The sun rises in the", "A B C D E", "1 2 3 4 5")
PROBE_TOLERANCE = 0.3

R = TypeVar("R")


class ServerBackend:
    """Backend of `model` on the server at `url` (such as http://localhost:8000/v1).

    `chat`: prompts without turns are sent as one user message to `/chat/completions`, too; turns always go there, where
    the server applies its own template. `concurrency` requests are under way at once. Each question is handed out as
    soon as it is answered. `api_key_env`, `timeout` (seconds per request), `retries`, `backoff`: see `Client`.

    Raises BadInput for a bad address or a refused key, PandaError where nothing answers.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        chat: bool = False,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
        retries: int = 6,
        backoff: float = 1.0,
        concurrency: int = 8,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.chat, self.concurrency = model, chat, max(1, concurrency)
        self.client = Client(
            url, api_key_env=api_key_env, timeout=timeout, retries=retries, backoff=backoff, say=progress.say
        )
        self._limit_name = "max_tokens"
        self._way: Literal["echo", "letters"] | None = None
        self._served = self._ask_served()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Address, model, what the server says about that model, and chat. A server can change its weights unseen."""
        return {
            "backend": "server",
            "url": self.client.url,
            "model": self.model,
            "served": self._served,
            "chat": self.chat,
            "device": "server",
        }

    def close(self) -> None:
        """Close the connections."""
        self.client.stop()

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool] = lambda i: False
    ) -> Iterator[list[tuple[int, Scored]]]:
        """See `Backend.score`; `scores` is empty where a letter was not among the server's most likely tokens.

        Raises BadInput where the server offers no log-probabilities, or not those that the prompt needs; PandaError
        where it stops answering.
        """
        todo = [i for i in range(len(asked)) if not done(i)]
        if not todo:
            return
        self.client.restart()
        if self._way is None:
            self._way = self._find_way(asked[todo[0]])
        if self._way == "letters":
            for i in todo:
                if not all(c.strip() in LETTERS and len(c.strip()) == 1 for c in asked[i].continuations):
                    raise BadInput(
                        f"The server at {self.client.url} gives log-probabilities of generated tokens only, which scores "
                        f"letters, but a prompt scores {asked[i].continuations[0].strip()[:30]!r}: choose prompts with "
                        "`answer: letter`, or --methods generation."
                    )
        work = self._score_echo if self._way == "echo" else self._score_letters
        yield from self._each(asked, todo, work)

    def generate(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int,
        settled: Callable[[int, str], bool] = lambda i, text: False,
        done: Callable[[int], bool] = lambda i: False,
    ) -> Iterator[list[tuple[int, Answered]]]:
        """See `Backend.generate`. `settled` is not asked: the server ends at its own end, `STOPS` or `max_new_tokens`."""
        self.client.restart()
        todo = [i for i in range(len(asked)) if not done(i)]

        def work(a: Asked) -> Answered:
            a, truncated, reply = self._fitting(a, lambda a: self._complete(a, max_new_tokens))
            return Answered(_text(reply, self.client.url), truncated)

        yield from self._each(asked, todo, work)

    # -- many requests ------------------------------------------------------------------------------------------------

    def _each(
        self, asked: Sequence[Asked], todo: Sequence[int], work: Callable[[Asked], R]
    ) -> Iterator[list[tuple[int, R]]]:
        """`work` of every question in threads, handed out as it comes; what was finished goes before an error."""
        waiting = list(reversed(todo))
        running: dict[Future[R], int] = {}
        finished = len(asked) - len(todo)
        failure: BaseException | None = None
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="server")
        try:
            while running or (waiting and failure is None):
                while waiting and failure is None and len(running) < self.concurrency:
                    i = waiting.pop()
                    running[pool.submit(work, asked[i])] = i
                over, _ = wait(running, return_when=FIRST_COMPLETED)
                batch = []
                for future in over:
                    i = running.pop(future)
                    error = future.exception()
                    if error is None:
                        batch.append((i, future.result()))
                    elif failure is None:
                        failure = error
                        if isinstance(error, Unanswered):  # the others would wait as long again
                            self.client.give_up()
                finished += len(batch)
                if batch:
                    yield sorted(batch, key=lambda pair: pair[0])
        finally:
            if running:  # left early: interrupted, or out of time
                self.client.stop()
            pool.shutdown(wait=not running, cancel_futures=True)
        if isinstance(failure, Unanswered):
            raise PandaError(
                f"{failure}; {finished} of {len(asked)} questions are done and kept: the same command goes on from there."
            ) from None
        if isinstance(failure, Refused):
            raise self._refusal(failure) from None
        if failure is not None:
            raise failure

    def _refusal(self, error: Refused) -> BadInput:
        if error.status in (401, 403):
            return BadInput(
                f"The server at {self.client.url} refuses the key (HTTP {error.status}: {error.message}): put a valid one "
                f"into the environment variable {self.client.api_key_env}."
            )
        return BadInput(
            f"The server at {self.client.url} refused a request for model {self.model!r} (HTTP {error.status}: "
            f"{error.message})."
        )

    def _ask_served(self) -> Any:
        """What the server lists under the model's name, or its only model; None where it lists nothing."""
        try:
            listed = self.client.get("/models", retries=min(1, self.client.retries))
        except Refused as e:
            if e.status in (401, 403):
                raise self._refusal(e) from None
            return None  # not every server lists its models
        except Unanswered as e:
            raise PandaError(f"{e}: start it, or check --server.") from None
        models = listed.get("data") if isinstance(listed, dict) else None
        models = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
        chosen = next((m for m in models if m.get("id") == self.model), models[0] if len(models) == 1 else {})
        # Not `created`: some servers give the time of the request.
        return {k: chosen[k] for k in ("id", "root", "meta") if k in chosen} or None

    # -- prompts that are too long ------------------------------------------------------------------------------------

    def _fitting(self, a: Asked, ask: Callable[[Asked], R]) -> tuple[Asked, bool, R]:
        """(question as it fitted, whether its passage was cut, reply): the server alone knows what fits."""
        try:
            return a, False, ask(a)
        except Refused as e:
            if not e.too_long:
                raise
            if a.passage[1] <= a.passage[0]:
                raise BadInput(
                    f"A prompt is too long for the server ({e.message}) and has no passage that may be cut: use fewer "
                    "shots, `on_long: cut`, or a model with a longer window."
                ) from None
        found: dict[str, tuple[Asked, R]] = {}

        def fits(context: str) -> bool:
            cut = _with_context(a, context)
            try:
                found[context] = (cut, ask(cut))
            except Refused as e:
                if e.too_long:
                    return False
                raise
            return True

        context = shorten(a, fits, 0)
        return found[context][0], True, found[context][1]

    # -- generation ---------------------------------------------------------------------------------------------------

    def _complete(self, a: Asked, max_tokens: int, **more: Any) -> Any:
        body: dict[str, Any] = {"model": self.model, "temperature": 0, **more}
        if a.messages is None and not self.chat:
            body |= {"prompt": a.context, "max_tokens": max_tokens}
            if max_tokens > 1:
                body["stop"] = list(STOPS)
            return self.client.post("/completions", body)
        body["messages"] = [dict(m) for m in a.messages or ({"role": "user", "content": a.context},)]
        try:
            return self.client.post("/chat/completions", {**body, self._limit_name: max_tokens})
        except Refused as e:
            # OpenAI's newer models know the limit under another name only.
            if self._limit_name != "max_tokens" or "max_completion_tokens" not in e.message:
                raise
            self._limit_name = "max_completion_tokens"
            return self.client.post("/chat/completions", {**body, self._limit_name: max_tokens})

    # -- log-probabilities --------------------------------------------------------------------------------------------

    def _find_way(self, a: Asked) -> Literal["echo", "letters"]:
        """How this server gives log-probabilities. Raises BadInput where it does not."""
        try:
            if self._echo_holds():
                return "echo"
        except Refused as e:
            if e.status in (401, 403):
                raise self._refusal(e) from None
        except Unanswered as e:
            raise PandaError(f"{e}: run again to go on.") from None
        try:
            if self._top(a, 1):
                return "letters"
        except Refused as e:
            if e.status in (401, 403):
                raise self._refusal(e) from None
        except Unanswered as e:
            raise PandaError(f"{e}: run again to go on.") from None
        raise BadInput(
            f"The server at {self.client.url} gives no log-probabilities of {self.model!r}, neither of the prompt (echo) "
            "nor of the answer (top_logprobs): use --methods generation."
        )

    def _echo_holds(self) -> bool:
        """Whether a token has the same log-probability echoed as generated.

        Some servers ignore `echo`, some give each token the prediction of the next one (llama-cpp-python, for models
        without a start token); their sums would look like scores.
        """
        passing = PASSING - {500}  # llama.cpp has said 500 for what it does not offer
        for text in PROBES:
            body = {"model": self.model, "prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": 1}
            generated = read_generated(self.client.post("/completions", body, passing))
            if generated is None or not generated[0].isascii() or not generated[0].strip():
                continue
            echo = self._echo(text + generated[0], passing)
            if echo is None:
                return False
            last = echo.logprobs[-1]
            if last is not None and echo.tokens[-1] == generated[0]:  # otherwise the text was read as other tokens
                return abs(last - generated[1]) <= PROBE_TOLERANCE
        return False

    def _echo(self, prompt: str, passing: set[int] = PASSING) -> Echo | None:
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": 1,  # some servers read 0 as no limit
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        return read_echo(self.client.post("/completions", body, passing), prompt)

    def _score_echo(self, a: Asked) -> Scored:
        def all_options(a: Asked) -> list[float]:
            kept = a.context.rstrip()  # trailing white space belongs to the continuation, as in `encode_questions`
            counted: list[int] = []

            def count() -> int:
                if not counted:
                    counted.append(self._count_tokens(kept))
                return counted[0]

            scores = []
            for continuation in a.continuations:
                text = kept + a.context[len(kept) :] + continuation
                echo = self._echo(text)
                if echo is None:
                    raise BadInput(f"The server at {self.client.url} left out the log-probabilities of a prompt.")
                scores.append(continuation_score(echo, text, len(kept), count))
            return scores

        _, truncated, scores = self._fitting(a, all_options)
        return Scored(scores, truncated)

    def _count_tokens(self, text: str) -> int:
        if not text:
            return 0
        reply = self.client.post(
            "/completions", {"model": self.model, "prompt": text, "max_tokens": 1, "temperature": 0}
        )
        count = (reply.get("usage") or {}).get("prompt_tokens")
        if not isinstance(count, int):
            raise BadInput(f"The server at {self.client.url} reports no usage.prompt_tokens: use --methods generation.")
        return count

    def _score_letters(self, a: Asked) -> Scored:
        letters = [c.strip() for c in a.continuations]
        _, truncated, top = self._fitting(a, lambda a: self._top(a, len(letters)))
        return Scored(letter_scores(top, letters), truncated)

    def _top(self, a: Asked, at_least: int) -> dict[str, float]:
        """Most likely first tokens of an answer; empty where the server gives none."""
        chat = a.messages is not None or self.chat
        for n in TOP_TOKENS:
            more = {"logprobs": True, "top_logprobs": n} if chat else {"logprobs": n}
            try:
                return read_top(self._complete(a, 1, **more))
            except Refused as e:
                if e.too_long or n == TOP_TOKENS[-1] or e.status not in (400, 422):
                    raise
        return {}


def _with_context(a: Asked, context: str) -> Asked:
    """The question with a cut context, in its last message too."""
    if a.messages is None:
        return replace(a, context=context)
    start, end = a.passage
    passage = a.context[start:end]
    kept = context[start : len(context) - (len(a.context) - end)]
    last = dict(a.messages[-1])
    if passage not in last["content"]:
        raise BadInput("A prompt is too long for the server, and its passage was not found in the message to cut it.")
    last["content"] = kept.join(last["content"].rsplit(passage, 1))
    return replace(a, context=context, messages=(*a.messages[:-1], last))


def _text(reply: Any, url: str) -> str:
    try:
        choice = reply["choices"][0]
        said = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, IndexError, TypeError):
        raise BadInput(
            f"The server at {url} answered without choices ({json.dumps(reply, ensure_ascii=False)[:120]}): it is not "
            "OpenAI-compatible."
        ) from None
    return said if isinstance(said, str) else ""  # null: nothing was said

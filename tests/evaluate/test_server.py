"""Against a real HTTP server in a thread that imitates the API, with log-probabilities that are known."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.backend import Asked
from pandallm.evaluate.extract import NEXT_QUESTION, normalize
from pandallm.evaluate.run import evaluate_model
from pandallm.evaluate.server import STOPS, ServerBackend
from pandallm.evaluate.server_client import retry_after
from pandallm.evaluate.server_logprobs import Echo, continuation_score, exact_start, letter_scores, read_echo
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.progress import Silent
from pandallm.store import read_jsonl


def logprob(before: str, token: str) -> float:
    """A made-up model: depends on the token and on the last character before it."""
    return -((sum(map(ord, token)) * 7 + sum(map(ord, before[-1:])) * 3) % 50 + 1) / 10


def sum_over_characters(context: str, continuation: str) -> float:
    return sum(logprob(context + continuation[:i], c) for i, c in enumerate(continuation))


class Imitation:
    """State of the imitated server; `before` runs ahead of each POST and may answer itself (status, body, headers)."""

    def __init__(self) -> None:
        self.begin = ""  # text of a special token before every prompt
        self.hide_begin = False  # the special token is counted, but not shown
        self.shift = 0  # by how many places echoed log-probabilities are off
        self.bytes = False  # tokens are bytes, shown as replacement characters outside ASCII
        self.echo = True
        self.echo_status = 0  # status with which echo is refused; 0: ignored
        self.top: dict[str, float] | None = {"A": -1.0, " A": -2.0, "B": -0.5, "C": -3.0, "D": -4.0, "。": -5.0}
        self.window = 10_000
        self.say: Callable[[str], str] = lambda prompt: f"答案：{'ABCD'[len(prompt) % 4]}"
        self.models: Any = {"data": [{"id": "m", "created": 1, "root": "/models/m"}]}
        self.before: Callable[[int, str, dict[str, Any]], tuple[int, Any, dict[str, str]] | None] = lambda n, p, b: None
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    def tokens(self, text: str) -> list[str]:
        parts = [text[i : i + 1] for i in range(len(text))]
        if self.bytes:
            parts = [chr(b) if b < 128 else "\ufffd" for b in text.encode()]
        return [self.begin, *parts] if self.begin else parts

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        chat = path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        tokens = self.tokens(prompt)
        if len(tokens) + body.get("max_tokens", 0) > self.window:
            return 400, {"error": {"message": f"This model's maximum context length is {self.window} tokens."}}
        said = self.say(prompt)
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
        if chat:
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": said}}
            if body.get("logprobs") and self.top is not None:
                top = [{"token": t, "logprob": v} for t, v in self.top.items()]
                choice["logprobs"] = {"content": [{"token": "A", "logprob": -1.0, "top_logprobs": top}]}
            return 200, {"choices": [choice], "usage": usage}
        if body.get("echo") and not self.echo and self.echo_status:
            return self.echo_status, {"error": {"message": "Only no echo is supported"}}
        if body.get("echo") and self.echo:
            logprobs: list[float | None] = []
            following = [*tokens, *"??"]
            text, offsets = "", []
            for n, token in enumerate(tokens):
                offsets.append(len(text))
                # Byte tokens get the log-probability of the ordinal of their position, to tell them apart.
                text_then, token_then = text + token * self.shift, following[n + self.shift]
                value = -float(n) if self.bytes else logprob(text_then, token_then)
                logprobs.append(None if n == 0 else value)
                text += token
            if self.hide_begin:
                tokens, logprobs = tokens[1:], logprobs[1:]
                offsets = [o - len(self.begin) for o in offsets[1:]]
                text = text[len(self.begin) :]
            lp = {"tokens": [*tokens, "!"], "token_logprobs": [*logprobs, -9.0], "text_offset": [*offsets, len(text)]}
            return 200, {"choices": [{"text": prompt + "!", "logprobs": lp}], "usage": usage}
        choice = {"text": said}
        if body.get("logprobs") and self.top is not None:
            own = -float(len(tokens)) if self.bytes else logprob(prompt, "A")
            choice["logprobs"] = {"tokens": ["A"], "token_logprobs": [own], "top_logprobs": [self.top]}
        return 200, {"choices": [choice], "usage": usage}


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Imitation, str]]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    state = Imitation()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            found = self.path == "/v1/models" and state.models is not None
            self._reply(200 if found else 404, state.models if found else {"detail": "Not Found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append((self.path, body, dict(self.headers)))
                number = len(state.requests) - 1
            special = state.before(number, self.path, body)
            if special is not None and special[0] == 0:  # hang up without an answer
                self.close_connection = True
                self.connection.close()
                return
            self._reply(*(special or state.answer(self.path, body)))

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that leave are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def opened(url: str, **more: Any) -> ServerBackend:
    return ServerBackend(url, "m", **{"backoff": 0.01, "retries": 2, "timeout": 5.0, "concurrency": 3} | more)


def letters(n: int = 5) -> list[Asked]:
    return [Asked(f"小明住在湖边。问题{i}\n答案：", ("A", "B", "C", "D"), (0, 7)) for i in range(n)]


def texts(n: int = 4) -> list[Asked]:
    return [Asked(f"小明住在湖边。问题{i}\n答案：\n", (" 湖边", " 山上的城", " x"), (0, 7)) for i in range(n)]


def flat(batches: Iterator[list[tuple[int, Any]]]) -> dict[int, Any]:
    return dict(pair for batch in batches for pair in batch)


# -- log-probabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["", "<s>"])
def test_echo_scores_are_the_sums_over_the_continuations_tokens(served: tuple[Imitation, str], begin: str) -> None:
    state, url = served
    state.begin = begin
    asked = texts()
    found = flat(opened(url).score(asked, ["p"] * 4, lambda i: False))
    assert sorted(found) == [0, 1, 2, 3]
    for i, a in enumerate(asked):
        kept = a.context.rstrip()
        want = [sum_over_characters(kept, a.context[len(kept) :] + c) for c in a.continuations]
        assert found[i].scores == pytest.approx(want)
        assert not found[i].truncated
    # All tokens were told by their offsets; the context was not counted.
    assert all(body.get("echo") for _, body, _ in state.requests[1:])


@pytest.mark.parametrize("hidden", [False, True])
def test_pieces_of_characters_are_counted_instead_of_trusting_offsets(
    served: tuple[Imitation, str], hidden: bool
) -> None:
    state, url = served
    state.bytes, state.begin, state.hide_begin = True, "<s>", hidden
    a = Asked("湖边", ("城", "ab"))
    found = flat(opened(url).score([a], ["p"], lambda i: False))
    # <s> and six bytes come before; the server gives token number n the log-probability -n.
    assert found[0].scores == [-(7.0 + 8 + 9), -(7.0 + 8)]


def test_a_hidden_start_token_changes_nothing(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.begin = "<s>"
    want = flat(opened(url).score(texts(), ["p"] * 4, lambda i: False))
    state.hide_begin = True
    assert flat(opened(url).score(texts(), ["p"] * 4, lambda i: False)) == want


def test_echoed_log_probabilities_of_the_wrong_place_are_not_used(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.shift = 1
    with pytest.raises(BadInput, match="scores letters, but a prompt scores"):
        flat(opened(url).score(texts(), ["p"] * 4, lambda i: False))
    assert flat(opened(url).score(letters(1), ["p"], lambda i: False))[0].scores[1] == -0.5


def test_a_token_across_the_boundary_counts() -> None:
    echo = Echo(["<s>", "ab", "cd", "e"], [None, -1.0, -2.0, -4.0], [0, 3, 5, 7])
    assert exact_start(echo, "abcde", 3) == 2
    assert continuation_score(echo, "abcde", 3, lambda: 99) == -6.0
    assert continuation_score(echo, "abcde", 4, lambda: 99) == -4.0


def test_offsets_that_contradict_the_tokens_are_not_used() -> None:
    echo = Echo(["ab", "cd"], [None, -2.0], [0, 1])
    assert exact_start(echo, "abcd", 2) is None
    assert continuation_score(echo, "abcd", 2, lambda: 1) == -2.0
    assert exact_start(Echo(["<s>", "ab", "cd"], [None, -1.0, -2.0], [0, 0, 2]), "abcd", 2) == 2


def test_an_option_without_anything_before_it_cannot_be_scored() -> None:
    with pytest.raises(BadInput, match=r"no log-probability of a prompt's first token"):
        continuation_score(Echo(["a", "b"], [None, -1.0], None), "ab", 0, lambda: 0)
    assert continuation_score(Echo(["<s>", "a", "b"], [None, -1.0, -2.0], None), "ab", 0, lambda: 0) == -3.0


def test_an_echo_without_the_prompt_is_none() -> None:
    ignored = {"choices": [{"text": "!", "logprobs": {"tokens": ["!"], "token_logprobs": [-1.0]}}]}
    assert read_echo(ignored, "abc") is None
    assert read_echo(ignored | {"usage": {"prompt_tokens": 3}}, "abc") is None
    assert read_echo({"choices": [{"text": "abc!", "logprobs": None}]}, "abc") is None
    assert read_echo({}, "abc") is None


@pytest.mark.parametrize(("status", "chat"), [(0, False), (400, False), (500, False), (0, True)])
def test_letters_by_the_most_likely_tokens_without_echo(served: tuple[Imitation, str], status: int, chat: bool) -> None:
    state, url = served
    state.echo, state.echo_status = False, status
    found = flat(opened(url, chat=chat).score(letters(2), ["p"] * 2, lambda i: False))
    want = [math.log(math.exp(-1.0) + math.exp(-2.0)), -0.5, -3.0, -4.0]
    assert found[0].scores == pytest.approx(want)
    assert found[1].scores == pytest.approx(want)
    if chat:
        assert state.requests[-1][0] == "/v1/chat/completions"
        assert state.requests[-1][1]["top_logprobs"] == 20


def test_a_letter_that_is_not_among_them_leaves_the_question_without_scores(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.echo, state.top = False, {"A": -1.0, "B": -2.0, "C": -3.0}
    found = flat(opened(url).score([Asked("x：", ("A", "B", "C")), *letters(1)], ["p", "q"], lambda i: False))
    assert found[0].scores == [-1.0, -2.0, -3.0]
    assert found[1].scores == []
    assert letter_scores({"AB": -1.0}, ["A"]) == []


def test_a_smaller_limit_of_likely_tokens_is_tried(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.echo = False
    state.before = lambda n, p, b: (400, {"message": "logprobs must be at most 5"}, {}) if b["logprobs"] > 5 else None
    assert flat(opened(url).score(letters(1), ["p"], lambda i: False))[0].scores[1] == -0.5


def test_without_log_probabilities_generation_is_advised(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.echo, state.top = False, None
    with pytest.raises(BadInput, match=r"no log-probabilities of 'm'.*--methods generation"):
        flat(opened(url).score(letters(), ["p"] * 5, lambda i: False))


def test_option_texts_need_echo(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.echo = False
    with pytest.raises(BadInput, match="scores letters, but a prompt scores '湖边'"):
        flat(opened(url).score(texts(), ["p"] * 4, lambda i: False))


# -- generation -------------------------------------------------------------------------------------------------------


def test_completions_are_greedy_and_end_where_the_next_question_begins(served: tuple[Imitation, str]) -> None:
    state, url = served
    asked = letters(7)
    found = flat(opened(url).generate(asked, 32, lambda i, text: False, lambda i: i == 3))
    assert {i: a.text for i, a in found.items()} == {i: state.say(asked[i].context) for i in range(7) if i != 3}
    path, body, _ = state.requests[0]
    assert path == "/v1/completions"
    assert (body["temperature"], body["max_tokens"], body["stop"], body["model"]) == (0, 32, list(STOPS), "m")


def test_stops_are_what_extraction_ignores() -> None:
    assert len(STOPS) <= 4
    for stop in STOPS:
        assert stop.startswith("\n")
        assert normalize(stop) in NEXT_QUESTION


def test_turns_go_to_the_chat_with_the_servers_template(served: tuple[Imitation, str]) -> None:
    state, url = served
    turns = (
        {"role": "user", "content": "一"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "二"},
    )
    backend = opened(url)
    flat(backend.generate([Asked("<t>二", ("A",), (0, 0), turns)], 8, lambda i, t: False, lambda i: False))
    path, body, _ = state.requests[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == list(turns)
    assert "stop" not in body
    flat(opened(url, chat=True).generate(letters(1), 8, lambda i, t: False, lambda i: False))
    assert state.requests[-1][1]["messages"] == [{"role": "user", "content": letters(1)[0].context}]


def test_the_newer_name_of_the_limit_is_learnt(served: tuple[Imitation, str]) -> None:
    state, url = served
    hint = {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}}
    state.before = lambda n, p, b: (400, hint, {}) if "max_tokens" in b else None
    found = flat(opened(url, chat=True, concurrency=1).generate(letters(3), 8, lambda i, t: False, lambda i: False))
    assert len(found) == 3
    assert [("max_completion_tokens" in b) for _, b, _ in state.requests] == [False, True, True, True]


def test_null_content_is_an_empty_answer(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.before = lambda n, p, b: (200, {"choices": [{"message": {"content": None}}]}, {})
    assert flat(opened(url, chat=True).generate(letters(1), 8, lambda i, t: False, lambda i: False))[0].text == ""


@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_that_is_too_long_loses_the_middle_of_its_passage(served: tuple[Imitation, str], chat: bool) -> None:
    state, url = served
    passage = "".join(chr(0x4E00 + i) for i in range(200))
    context = f"文：{passage}\n答案："
    messages = ({"role": "user", "content": context},) if chat else None
    asked = [Asked(context, ("A", "B"), (2, 202), messages), letters(1)[0]]
    state.window = 60
    found = flat(opened(url).generate(asked, 8, lambda i, t: False, lambda i: False))
    assert found[0].truncated
    assert not found[1].truncated
    fitting = [
        (b["messages"][-1]["content"] if chat else b["prompt"])
        for p, b, _ in state.requests
        if p.endswith("/chat/completions") == chat
    ]
    best = max((t for t in fitting if t.startswith("文") and len(t) + 8 <= 60), key=len)
    assert len(best) == 52  # as much as the window holds
    assert best.startswith("文：" + passage[:10])
    assert best.endswith(passage[-10:] + "\n答案：")
    if not chat:
        assert flat(opened(url).score(asked, ["p", "q"], lambda i: False))[0].truncated


def test_a_prompt_that_is_too_long_without_a_passage_is_told(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.window = 20
    with pytest.raises(BadInput, match=r"too long for the server .*maximum context length is 20"):
        flat(opened(url).generate([Asked("一" * 50, ("A",))], 8, lambda i, t: False, lambda i: False))


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [(500, {"error": "busy"}, {}), (503, b"<html>", {}), (0, None, {}), (200, b"{", {})]
)
def test_passing_failures_are_tried_again_and_told(served: tuple[Imitation, str], failure: Any) -> None:
    state, url = served
    state.before = lambda n, p, b: failure if n in (1, 2) else None
    said = Said()
    backend = opened(url, progress=said, concurrency=1)
    found = flat(backend.generate(letters(3), 8, lambda i, t: False, lambda i: False))
    assert len(found) == 3
    assert len(state.requests) == 5
    assert said.lines
    assert "trying again in" in said.lines[0]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(served: tuple[Imitation, str], form: str) -> None:
    state, url = served
    times: list[float] = []

    def busy(n: int, path: str, body: Any) -> Any:
        times.append(time.time())
        # A date has whole seconds: two ahead is at least one.
        value = "0.4" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return (429, {"error": {"message": "slow down"}}, {"Retry-After": value}) if n == 0 else None

    state.before = busy
    flat(opened(url).generate(letters(1), 8, lambda i, t: False, lambda i: False))
    assert times[1] - times[0] >= (0.4 if form == "seconds" else 0.9)


def test_retry_after_in_any_form() -> None:
    assert retry_after("3") == 3.0
    assert retry_after("-3") == 0.0
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_server_that_dies_midway_keeps_what_is_done_and_goes_on(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.before = lambda n, p, b: (0, None, {}) if n >= 4 else None
    asked = letters(10)
    kept: dict[int, Any] = {}
    backend = opened(url, concurrency=2)
    with pytest.raises(
        PandaError, match=r"does not answer after 3 tries.* 4 of 10 questions are done and kept: the same"
    ):
        for batch in backend.generate(asked, 8, lambda i, t: False, lambda i: False):
            kept.update(batch)
    assert len(kept) == 4
    state.before = lambda n, p, b: None
    before = len(state.requests)
    for batch in backend.generate(asked, 8, lambda i, t: False, kept.__contains__):
        kept.update(batch)
    assert sorted(kept) == list(range(10))
    assert len(state.requests) - before == 6  # nothing was asked twice
    assert [kept[i].text for i in range(10)] == [state.say(a.context) for a in asked]


def test_a_slow_server_is_given_up_after_its_time(served: tuple[Imitation, str]) -> None:
    state, url = served

    def slow(n: int, path: str, body: Any) -> None:
        if n == 1:
            time.sleep(0.6)

    state.before = slow
    with pytest.raises(PandaError, match=r"does not answer \(no answer within 0.2 s\); 1 of 3"):
        flat(
            opened(url, timeout=0.2, retries=0, concurrency=1).generate(
                letters(3), 8, lambda i, t: False, lambda i: False
            )
        )


def test_leaving_early_ends_waits(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.before = lambda n, p, b: (503, {}, {"Retry-After": "60"}) if n >= 1 else None
    backend = opened(url, concurrency=2)
    started = time.monotonic()
    results = backend.generate(letters(4), 8, lambda i, t: False, lambda i: False)
    next(results)
    results.close()  # type: ignore[attr-defined]
    names = [t for t in threading.enumerate() if t.name.startswith("server")]
    for thread in names:
        thread.join(5)
    assert time.monotonic() - started < 5
    assert not any(t.is_alive() for t in names)


def test_a_refusal_is_told_in_one_sentence_and_not_tried_again(served: tuple[Imitation, str]) -> None:
    state, url = served
    state.before = lambda n, p, b: (404, {"error": {"message": "The model `m` does not exist."}}, {})
    with pytest.raises(BadInput, match=r"refused a request for model 'm' \(HTTP 404: The model `m` does not exist\.\)"):
        flat(opened(url, concurrency=1).generate(letters(3), 8, lambda i, t: False, lambda i: False))
    assert len(state.requests) == 1


def test_no_server_is_told_at_the_start() -> None:
    with pytest.raises(PandaError, match=r"does not answer.*start it, or check --server"):
        ServerBackend("http://127.0.0.1:9/v1", "m", retries=0)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://", "http://me:secret@host/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(BadInput, match="--server") as e:
        ServerBackend(url, "m")
    assert "secret" not in str(e.value)


def test_the_key_is_sent_and_never_shown(served: tuple[Imitation, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, url = served
    monkeypatch.setenv("MY_KEY", "sk-secret")
    refusal = {"error": {"message": "Incorrect API key provided: sk-secret."}}
    state.before = lambda n, p, b: (401, refusal, {}) if n else (503, refusal, {})
    said = Said()
    backend = opened(url, api_key_env="MY_KEY", progress=said)
    with pytest.raises(BadInput, match="put a valid one into the environment variable MY_KEY") as e:
        flat(backend.generate(letters(1), 8, lambda i, t: False, lambda i: False))
    assert state.requests[0][2]["Authorization"] == "Bearer sk-secret"
    shown = [str(e.value), *said.lines, json.dumps(dict(backend.identity))]
    assert len(shown) == 3
    assert not any("sk-secret" in text for text in shown)


def test_identity_names_the_served_model(served: tuple[Imitation, str]) -> None:
    state, url = served
    first = opened(url + "/chat/completions").identity
    assert first == opened(url).identity
    assert first["url"] == url
    assert first["served"] == {"id": "m", "root": "/models/m"}
    state.models = {"data": [{"id": "m", "root": "/models/other"}]}
    assert opened(url).identity != first
    state.models = None
    assert opened(url).identity["served"] is None
    assert opened(url, chat=True).identity != opened(url).identity


# -- a whole evaluation -----------------------------------------------------------------------------------------------


def test_a_killed_evaluation_goes_on_over_http(
    served: tuple[Imitation, str], task: Any, questions: Any, tmp_path: Path
) -> None:
    state, url = served
    state.top = {"A": -1.0, "B": -0.5, "C": -3.0}  # no D: questions of four options have no scores
    state.echo = False
    state.say = lambda prompt: "答案：B\n问题："
    spec = EvaluateSpec(prompts=("letter",), methods=("likelihood", "generation"))

    def run(out: Path) -> list[dict[str, Any]]:
        backend = opened(url, concurrency=1, retries=0)
        evaluate_model(Path("m"), "m", [(task, questions)], {}, spec, out, backend=backend)
        backend.close()
        return list(read_jsonl(out / "rows.jsonl"))

    want = run(tmp_path / "whole")
    asked = len(state.requests)
    state.before = lambda n, p, b: (0, None, {}) if n >= asked + 6 else None
    with pytest.raises(PandaError, match="questions are done and kept"):
        run(tmp_path / "killed")
    state.before = lambda n, p, b: None
    assert run(tmp_path / "killed") == want
    four = {q.id for q in questions if len(q.options) == 4}
    assert four
    for row in want:
        if row["method"] == "generation":
            assert row["choice"] == 1
        elif row["id"] in four:
            assert (row["choice"], row["scores"], row["correct"]) == (None, None, False)
        else:
            assert row["scores"][:2] == [-1.0, -0.5]

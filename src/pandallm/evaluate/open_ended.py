"""Open-ended prompts: reading them, answering them, and the blind order in which answers are shown."""

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from pandallm.errors import BadInput
from pandallm.evaluate.journal import Journal
from pandallm.spec import Spec, nearest
from pandallm.store import digest_json, read_jsonl

#: Fields of a record, beside those of `OpenPrompt`, that are read (MT-bench's names) or may stand there unread.
ALIASES = {"question_id": "id", "prompt": "turns"}
UNREAD = {"reference", "version"}

#: What ended an answer: the model's own end of text, `max_new_tokens`, or a prompt that leaves no room for an answer.
Stopped = Literal["eos", "length", "no_room"]
Turn = dict[str, str]


class OpenPrompt(Spec):
    """What the user says, turn after turn; nothing is right or wrong."""

    id: str = Field(min_length=1)
    category: str = ""
    language: str = ""
    turns: tuple[str, ...] = Field(min_length=1)

    @field_validator("turns")
    @classmethod
    def _no_empty_turn(cls, turns: tuple[str, ...]) -> tuple[str, ...]:
        if not all(t.strip() for t in turns):
            raise ValueError("a turn is empty")
        return turns


class Answer(Spec):
    """One turn of one model: text (white space at both ends removed), number of new tokens, what ended it."""

    text: str
    tokens: int
    stopped: Stopped


def load_prompts(source: str) -> list[OpenPrompt]:
    """The prompts of a JSONL or YAML file, or of the built-in set ("builtin").

    A record has `id` (or `question_id`), `turns` (or `prompt`, one turn) and may have `category` and `language`; a YAML
    file is a list of records, or a mapping with `prompts`. Without an id the record's number is used. Raises BadInput
    with file and number of the record for a wrong field, an empty turn, or an id given twice.
    """
    if source == "builtin":
        text = (resources.files("pandallm.evaluate") / "prompt_sets" / "builtin.yaml").read_text(encoding="utf-8")
        return _prompts(_yaml_records(text, "builtin"))
    path = Path(source)
    if source.endswith((".yaml", ".yml")):
        try:
            return _prompts(_yaml_records(path.read_text(encoding="utf-8"), source))
        except FileNotFoundError:
            raise BadInput(f"{source} does not exist.") from None
        except UnicodeDecodeError:
            raise BadInput(f"{source} is not UTF-8 text; save it as UTF-8.") from None
    if source.endswith(".jsonl"):
        return _prompts([(f"{source}: record {n}", record) for n, record in enumerate(read_jsonl(path), 1)], source)
    raise BadInput(f"--prompts {source}: give a .jsonl or .yaml file, or builtin.")


def _yaml_records(text: str, where: str) -> list[tuple[str, Any]]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise BadInput(f"{where} is not valid YAML ({' '.join(str(e).split())}).") from None
    if isinstance(data, dict):
        data = data.get("prompts")
    if not isinstance(data, list):
        raise BadInput(f"{where}: expected a list of prompts, or `prompts:` with a list.")
    return [(f"{where}: prompt {n}", record) for n, record in enumerate(data, 1)]


def _prompts(records: Sequence[tuple[str, Any]], source: str = "the file") -> list[OpenPrompt]:
    found: dict[str, OpenPrompt] = {}
    for number, (where, record) in enumerate(records, 1):
        prompt = _prompt(record, str(number), where)
        if prompt.id in found:
            raise BadInput(f"{where}: the id {prompt.id!r} is given twice; every prompt needs its own.")
        found[prompt.id] = prompt
    if not found:
        raise BadInput(f"{source} holds no prompts.")
    return list(found.values())


def _prompt(record: Any, number: str, where: str) -> OpenPrompt:
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a mapping with `id` and `turns`, found {type(record).__name__}.")
    fields: dict[str, Any] = {"id": number}
    for key, value in record.items():
        name = ALIASES.get(str(key), str(key))
        if name in UNREAD:
            continue
        if name not in OpenPrompt.model_fields:
            raise BadInput(f"{where}: unknown field '{key}'.{nearest(str(key), [*OpenPrompt.model_fields, *ALIASES])}")
        fields[name] = str(value) if name == "id" and isinstance(value, int) else value
    if isinstance(fields.get("turns"), str):
        fields["turns"] = [fields["turns"]]
    try:
        return OpenPrompt.model_validate(fields)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(x) for x in first["loc"])
        raise BadInput(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}.") from None


def shown_order(seed: int, prompt_id: str, models: Sequence[str]) -> list[str]:
    """The models in the order in which their answers to one prompt are shown as 1, 2, ...

    Drawn by hash: the same seed, prompt and names give the same order, whatever order the names come in, and over many
    prompts every order is equally likely.
    """
    return sorted(models, key=lambda name: digest_json([seed, prompt_id, name]))


def answer_prompts(
    model: Any,
    tokenizer: Any,
    encode: Callable[[list[Turn]], list[int]],
    prompts: Sequence[OpenPrompt],
    journal: Journal,
    *,
    max_new_tokens: int,
    window: int,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda turns: None,
) -> list[list[Answer]]:
    """Greedy answers of one model: for each prompt one answer per user turn.

    `encode` turns a dialogue into token ids. Turn k is asked once turn k - 1 is answered, all prompts of a turn in
    batches. A dialogue longer than `window` - `max_new_tokens` tokens is not cut: it and its later turns count as
    "no_room". Answers come from and go to `journal`, under "prompt number/turn number".
    """
    from pandallm.evaluate.generate import generate

    advance(len(journal.rows))
    answers: list[list[Answer]] = [[] for _ in prompts]
    for k in range(max(len(p.turns) for p in prompts)):
        asked = [i for i, p in enumerate(prompts) if len(p.turns) > k]
        ids = {i: encode(dialogue(prompts[i].turns[: k + 1], [a.text for a in answers[i]])) for i in asked}
        room = [
            i
            for i in asked
            if len(ids[i]) + max_new_tokens <= window and all(a.stopped != "no_room" for a in answers[i])
        ]

        def known(b: int, room: list[int] = room, k: int = k) -> bool:
            return f"{room[b]}/{k}" in journal.rows

        for batch in generate(
            model, _AsIds(tokenizer), [ids[i] for i in room], max_new_tokens, batch_tokens, done=known
        ):
            new = [b for b, _ in batch if not known(b)]
            journal.add((f"{room[b]}/{k}", _answer(tokenizer, said, max_new_tokens)) for b, said in batch)
            advance(len(new))
        for i in asked:
            none = {"text": "", "tokens": 0, "stopped": "no_room"}
            answers[i].append(Answer.model_validate(journal.rows[f"{i}/{k}"] if i in room else none))
    return answers


def dialogue(turns: Sequence[str], answers: Sequence[str]) -> list[Turn]:
    """User and assistant turns in turn; the last one is the user's."""
    said = [{"role": "user", "content": turns[0]}]
    for user, answer in zip(turns[1:], answers, strict=True):
        said += [{"role": "assistant", "content": answer}, {"role": "user", "content": user}]
    return said


def _answer(tokenizer: Any, said: str, max_new_tokens: int) -> dict[str, Any]:
    ids = json.loads(said) if said else []
    text = str(tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
    ended = len(ids) < max_new_tokens
    if not ended:
        text = text.rstrip("\ufffd")  # the first bytes of a character that the limit cut in two
    return {"text": text.strip(), "tokens": len(ids), "stopped": "eos" if ended else "length"}


class _AsIds:
    """Stands in for the tokenizer, so that `generate` hands back token ids: only their number says what ended an answer."""

    def __init__(self, tokenizer: Any) -> None:
        self.eos_token_id = tokenizer.eos_token_id

    def decode(self, ids: list[int], **_: Any) -> str:
        return json.dumps(ids)

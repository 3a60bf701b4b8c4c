"""Chat templates: dialogues as a tokenizer's Jinja template writes them, cut into what the template says and what people say.

A template is rendered with marks in place of the contents and cut at the marks. The parts are tokenised one by one: special tokens
that the template spells are special tokens, those that a content spells are text, so that nobody can end a turn by typing its end.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pandallm.data.chat_cut import NAMED, ChatTemplate, Cutter, Message
from pandallm.data.tokenize import calls, load_tokenizer, tokenizer_facts
from pandallm.errors import BadInput
from pandallm.store import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: How special tokens of chats look like; others (`[INST]`) are ordinary text.
_TOKEN = re.compile(r"<\|[^|<>\s]+\|>")
_ROUNDS = (("user", "assistant"), ("user", "assistant", "user", "assistant"))
#: What a tokenizer names beside its EOS and BOS; a template may use them.
_OTHER_TOKENS = ("unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Segment(NamedTuple):
    """A stretch of a dialogue. special: whether special tokens that it spells are meant as such (the template's own text)."""

    text: str
    special: bool
    trained: bool


def open_template(name: str, folder: Path) -> ChatTemplate:
    """The template `name` (`base`: the tokenizer's own) for the tokenizer of `folder`, checked against it.

    A tokenizer that puts BOS in front of texts gets it in front of dialogues too: where the template does not write it, it is added
    to the template, so that training, chat, evaluation and servers read the same. Raises BadInput where the base has no template,
    the vocabulary lacks a special token, or the template cannot be cut.
    """
    if name == "base":
        text = _own_template(folder)
    elif name in NAMED:
        text = _named_template(name)
    else:
        raise BadInput(f"chat_template: {name} is unknown; use none, base, {', '.join(NAMED)}.")
    facts, tokenizer = tokenizer_facts(folder), load_tokenizer(folder)
    tokens = _named_tokens(folder)
    tokens["eos_token"] = str(tokenizer.id_to_token(facts.eos_id))
    if facts.bos_id is not None:
        tokens["bos_token"] = str(tokenizer.id_to_token(facts.bos_id))
    template = ChatTemplate(name, text, tuple(sorted(tokens.items())))
    asked = [{"role": "user", "content": "a"}]
    if facts.bos_id is not None and not Cutter(template).render(asked, True).startswith(tokens["bos_token"]):
        template = ChatTemplate(name, "{{- bos_token -}}" + text, template.tokens)
    ChatEncoder(tokenizer, template).check()
    return template


def check_vocabulary(name: str, special: Collection[str]) -> None:
    """Raise BadInput where the template `name` does not fit a tokenizer that is still to be trained, with these special tokens."""
    if name == "base":
        raise BadInput(
            f"chat_template: base is for a base that brings a template; this one is made here: name {', '.join(NAMED)}."
        )
    missing = [t for t in dict.fromkeys(_TOKEN.findall(_named_template(name))) if t not in special]
    if missing:
        raise BadInput(
            f"The chat template {name} needs {' and '.join(missing)}: add base.scratch.tokenizer.special: "
            f"[{', '.join(json.dumps(t) for t in missing)}], or use chat_template: panda, which needs none."
        )


def _named_template(name: str) -> str:
    file = resources.files("pandallm.data") / "chat_templates" / f"{name}.jinja"
    return file.read_text(encoding="utf-8").rstrip("\n")


def _own_template(folder: Path) -> str:
    """The template of a tokenizer's folder: the file that transformers 5 writes, or the field of earlier versions."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name).get("chat_template")
            if isinstance(found, list):  # several by name
                found = {entry.get("name"): entry.get("template") for entry in found}.get("default")
            if isinstance(found, str):
                return found
    raise BadInput(
        f"chat_template: base is asked for, but the base ({folder}) has no chat template; name one: {', '.join(NAMED)}."
    )


def _named_tokens(folder: Path) -> dict[str, str]:
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= read_json(folder / name)
    found = {}
    for name in ("bos_token", "eos_token", *_OTHER_TOKENS):
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found


class ChatEncoder:
    """Dialogues -> tokens, for one tokenizer and template."""

    def __init__(self, tokenizer: "Tokenizer", template: ChatTemplate) -> None:
        self.tokenizer, self.cutter, self.template = tokenizer, Cutter(template), template
        self.eos_token = dict(template.tokens)["eos_token"]
        added = tokenizer.get_added_tokens_decoder().values()
        special = {t.content for t in added if t.special and t.content} | {self.eos_token}
        self._special = "|".join(map(re.escape, sorted(special, key=lambda t: (-len(t), t))))
        self._end = re.compile(rf"(\s*)({self._special})")
        self._ends_special = re.compile(rf"({self._special})\Z")
        self._cache: dict[tuple[str, bool], list[int]] = {}
        self._find_prefix()

    # What stands in a dialogue

    def segments(self, messages: Sequence[Message], generate: bool = False) -> list[Segment]:
        """A dialogue cut into stretches. Trained: the answers, and the token after each that ends the turn.

        Where the template ends an answer with no special token, EOS is put after the last one. What follows the last end of turn
        is left out. generate: nothing is trained, and it ends where the assistant is to answer.

        White space between two stretches goes where the tokenizer, given the whole text, would have it: blanks to the text after
        them, line breaks after a question to the question. Raises BadInput where the dialogue cannot be cut.
        """
        roles = tuple(m["role"] for m in messages)
        pieces, contents = self.cutter.pieces(roles, generate), self.cutter.contents(messages, generate)
        leads = self._leads(roles, generate)
        out: list[Segment] = []
        rest, ended = pieces[0], True
        for i, (role, content, after) in enumerate(zip(roles, contents, pieces[1:], strict=True)):
            lead = leads.get(i, len(rest) - len(rest.rstrip(" ")))
            if rest[: len(rest) - lead]:
                out.append(Segment(rest[: len(rest) - lead], True, False))
            content = rest[len(rest) - lead :] + content
            trained = role == "assistant" and not generate
            if role != "assistant":
                breaks = re.match(r"\s*\n", after[: len(after) - leads.get(i + 1, 0)])
                content, after = content + (breaks[0] if breaks else ""), after[breaks.end() if breaks else 0 :]
            if content:
                out.append(Segment(content, False, trained))
            if trained:
                end = self._end.match(after) if self.turn_end else None
                ended = end is not None
                if end:
                    out.append(Segment(end[0], True, True))
                    after = after[end.end() :]
            rest = after
        if generate and rest:
            out.append(Segment(rest, True, False))
        if not generate and not ended:
            out.append(Segment(self.eos_token, True, True))
        return out

    def _leads(self, roles: tuple[str, ...], generate: bool) -> dict[int, int]:
        try:
            return self.cutter.leads(roles)
        except BadInput:
            if not generate:
                raise
            return {}  # good enough to talk with

    @cached_property
    def turn_end(self) -> str | None:
        """The special token that the template puts after an answer."""
        end = self._end.match(self.cutter.pieces(_ROUNDS[0], False)[-1])
        return end[2] if end else None

    @property
    def end_of_turn(self) -> int:
        """The id of the token that ends an answer: the template's, or EOS."""
        number = self.tokenizer.token_to_id(self.turn_end or self.eos_token)
        assert number is not None  # both come from its vocabulary
        return int(number)

    def check(self) -> None:
        """Raise BadInput where dialogues of this template cannot be trained on with this tokenizer."""
        what = self.cutter.what
        found = []
        for roles in _ROUNDS:
            pieces = self.cutter.pieces(roles, False)
            self.cutter.leads(roles)
            found += [self._end.match(pieces[i + 1]) for i, role in enumerate(roles) if role == "assistant"]
        if self.turn_end and any(end is None or end[2] != self.turn_end for end in found):
            raise BadInput(f"{what} does not end every answer alike; name another one: {', '.join(NAMED)}.")
        if self.template.name != "base":  # a base may spell its marks in ordinary tokens, as it was trained
            text = "".join(self.cutter.pieces(_ROUNDS[1], False)) + self.cutter.pieces(("user",), True)[-1]
            tokens = list(dict.fromkeys(_TOKEN.findall(text)))
            missing = [t for t in tokens if self.tokenizer.token_to_id(t) is None]
            if missing:
                wanted = ", ".join(json.dumps(t) for t in missing)
                raise BadInput(
                    f"{what} needs {' and '.join(missing)}, which the base's vocabulary lacks: add them by "
                    f"base.extend: {{special: [{wanted}]}}, or use chat_template: panda, which needs none."
                )

    def joins_alike(self) -> bool:
        """Whether the tokens of the stretches of a small dialogue are those of its whole text, which servers tokenise."""
        said = (" one two.", "Three, four!", "五六七？", "八九十。")
        messages = [{"role": r, "content": c.strip()} for r, c in zip(_ROUNDS[1], said, strict=True)]
        segments = self.segments(messages)
        self.tokenizer.encode_special_tokens = False
        whole = self.tokenizer.encode("".join(s.text for s in segments), add_special_tokens=False).ids
        self.tokenizer.encode_special_tokens = True
        return [i for ids in self.encode(segments) for i in ids] == whole

    # Their tokens

    def _find_prefix(self) -> None:
        """Tokenizers of SentencePiece put a blank before a text: a stretch in the middle is given to them after a line break, whose tokens are then taken off."""
        alone, broken = self._plain("a"), self._plain("\na")
        self._break = self._plain("\n")
        self._inside = broken[: len(self._break)] == self._break and broken[len(self._break) :] != alone
        after = self._parsed(self.eos_token + "a")
        self._fresh = after == [*self._parsed(self.eos_token), *alone]

    def _plain(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = True
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _parsed(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = False
        ids = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        self.tokenizer.encode_special_tokens = True
        return ids

    def encode(self, segments: Sequence[Segment]) -> list[list[int]]:
        """Token ids of each segment of one dialogue, in order."""
        return self.encode_all([segments])[0]

    def encode_all(self, dialogues: Sequence[Sequence[Segment]]) -> list[list[list[int]]]:
        """Token ids of each segment of each dialogue; the contents of all go to the tokenizer together."""
        places = [(s, self._is_inside(segments, i)) for segments in dialogues for i, s in enumerate(segments)]
        contents = [("\n" + s.text if inside else s.text) for s, inside in places if not s.special]
        found = (e.ids for part in calls(contents) for e in self._batch(contents[part]))
        ids = iter(
            [self._template_ids(s.text, inside) if s.special else self._off(found, s, inside) for s, inside in places]
        )
        return [[next(ids) for _ in segments] for segments in dialogues]

    def _is_inside(self, segments: Sequence[Segment], i: int) -> bool:
        """Whether a segment's tokens are those of the middle of a text."""
        if not self._inside or i == 0:
            return False
        before = segments[i - 1]  # a special token may begin a text anew
        return not (self._fresh and before.special and self._ends_special.search(before.text))

    def _batch(self, texts: list[str]) -> list[Any]:
        self.tokenizer.encode_special_tokens = True  # template texts in between are parsed
        return list(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def _off(self, found: Iterator[list[int]], segment: Segment, inside: bool) -> list[int]:
        ids = next(found)
        if not inside:
            return ids
        return ids[len(self._break) :] if ids[: len(self._break)] == self._break else self._plain(segment.text)

    def _template_ids(self, text: str, inside: bool) -> list[int]:
        if (text, inside) not in self._cache:
            ids = self._parsed("\n" + text if inside else text)
            good = inside and ids[: len(self._break)] == self._break
            self._cache[text, inside] = ids[len(self._break) :] if good else self._parsed(text)
        return self._cache[text, inside]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a dialogue up to where the assistant is to answer."""
        return [i for ids in self.encode(self.segments(messages, generate=True)) for i in ids]

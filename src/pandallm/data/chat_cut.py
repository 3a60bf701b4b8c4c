"""Rendering a chat template and cutting what comes out at the contents."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pandallm.data.spec import ChatTemplateName
from pandallm.errors import BadInput
from pandallm.store import digest_json

Message = Mapping[str, str]
#: Names of templates that come with the package.
NAMED = tuple(n for n in get_args(ChatTemplateName) if n not in ("none", "base"))
#: Stand around a message's number where its content would stand; private characters that no template writes.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


@dataclass(frozen=True)
class ChatTemplate:
    """A template's name in recipes (`own`: that of a model's folder), its Jinja text, and what `bos_token`, `eos_token` and others
    stand for in it."""

    name: str
    text: str
    tokens: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Changes when other tokens could come out."""
        return digest_json([self.text, self.tokens])


class Cutter:
    """A compiled template that cuts dialogues; what it finds out about a sequence of roles is kept."""

    def __init__(self, template: ChatTemplate) -> None:
        """Raises BadInput for a text that is not a template."""
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.template = template
        # As transformers.utils.chat_template_utils sets it up, but for `strftime_now`: packs must not depend on the day.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = self._refuse
        try:
            self._compiled = environment.from_string(template.text)
        except jinja2.TemplateSyntaxError as e:
            raise BadInput(f"{self.what} is not a Jinja template (line {e.lineno}: {e.message}).") from None
        self._pieces: dict[tuple[tuple[str, ...], bool], tuple[str, ...]] = {}
        self._leads: dict[tuple[str, ...], dict[int, int]] = {}

    @property
    def what(self) -> str:
        whose = {"base": "base's", "own": "model's"}.get(self.template.name)
        return f"The {whose} chat template" if whose else f"The chat template {self.template.name}"

    @staticmethod
    def _refuse(message: str) -> str:
        from jinja2 import TemplateError

        raise TemplateError(message)

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The dialogue as one text; `generate`: up to where the assistant answers. Raises BadInput for what the template refuses."""
        try:
            return self._compiled.render(
                messages=[dict(m) for m in messages],
                add_generation_prompt=generate,
                tools=None,
                documents=None,
                **dict(self.template.tokens),
            )
        except Exception as e:  # whatever the template's own code raises
            roles = ", ".join(m["role"] for m in messages)
            raise BadInput(f"{self.what} cannot write a dialogue of {roles} ({e}); name another one.") from None

    def pieces(self, roles: tuple[str, ...], generate: bool) -> tuple[str, ...]:
        """What the template writes before, between and after the contents: (messages + 1). Raises BadInput where it cannot be cut."""
        key = roles, generate
        if key not in self._pieces:
            parts = _MARK.split(self.render(_marked(roles), generate))
            if parts[1::2] != [str(i) for i in range(len(roles))]:
                raise BadInput(
                    f"{self.what} cannot be cut: it does not write every message once and in order; "
                    f"name another one: {', '.join(NAMED)}."
                )
            self._pieces[key] = tuple(parts[0::2])
        return self._pieces[key]

    def leads(self, roles: tuple[str, ...]) -> dict[int, int]:
        """For each answer how much white space the template writes between the place where the assistant begins and the answer.

        Raises BadInput where the text before an answer is not what the model will read when it is asked to answer: it would learn
        to go on from a text that it never sees again.
        """
        if roles not in self._leads:
            marked, full, found = _marked(roles), self.render(_marked(roles), False), {}
            self.pieces(roles, False)
            for i, role in enumerate(roles):
                if role == "assistant":
                    asked = self.render(marked[:i], True)
                    before = full[: full.index(marked[i]["content"])]
                    rest = before[len(asked) :]
                    if not before.startswith(asked) or rest.strip():
                        wrote, asks = (_MARK.sub("..", text)[-40:] for text in (before, asked))
                        raise BadInput(
                            f"{self.what} cannot be trained with: what it writes before an answer ({wrote!r}) is not "
                            f"what it writes when it asks for one ({asks!r}); name another one: {', '.join(NAMED)}."
                        )
                    found[i] = len(rest)
            self._leads[roles] = found
        return self._leads[roles]

    def contents(self, messages: Sequence[Message], generate: bool) -> list[str]:
        """The contents as the template writes them: as they are, or without white space at an end.

        Raises BadInput where the template makes something else of them.
        """
        pieces = self.pieces(tuple(m["role"] for m in messages), generate)
        whole = self.render(messages, generate)
        at, found = len(pieces[0]), []
        good = whole.startswith(pieces[0])
        for message, piece in zip(messages, pieces[1:], strict=True):
            given = message["content"]
            forms = [given, given.strip(), given.rstrip(), given.lstrip()]
            forms += [given.strip("\n"), given.rstrip("\n"), given.lstrip("\n")]
            kept = next((form for form in forms if whole.startswith(form + piece, at)), None)
            if kept is None:
                good = False
                break
            found.append(kept)
            at += len(kept) + len(piece)
        if not good or at != len(whole):
            raise BadInput(
                f"{self.what} changes the content of a message or goes by it, so that the dialogue cannot be cut; "
                f"take the record out or name another template: {', '.join(NAMED)}."
            )
        return found


def _marked(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{_OPEN}{i}{_CLOSE}"} for i, role in enumerate(roles)]

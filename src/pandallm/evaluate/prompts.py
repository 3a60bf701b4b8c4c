"""A question under a prompt -> the text a model reads and the texts it is scored on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pandallm.errors import BadInput
from pandallm.tasks.spec import PromptSpec
from pandallm.tasks.types import LETTERS, Question

_PLACEHOLDER = re.compile(r"\{(context|question|options|[A-J])\}")
_SHOWS_OPTIONS = re.compile(r"\{(options|[A-J])\}")
_LABEL = r"\s*[(（]?{}[)）]?\s*[.．。、:：)）]\s*"


@dataclass(frozen=True)
class Rendered:
    """`context`, and the span of the passage in it; `options` as shown; `answers`: option texts or letters."""

    context: str
    passage: tuple[int, int]
    options: tuple[str, ...]
    answers: tuple[str, ...]


def render(prompt: PromptSpec, question: Question) -> tuple[str, list[str]]:
    """(context text, one continuation per option): what is given and what is scored.

    A continuation is `prompt.delimiter` + the option's text or letter, as lm-evaluation-harness builds it. Filled-in
    text is never read for placeholders. Raises BadInput where the template names a letter the question lacks.
    """
    r = fill(prompt, question)
    return r.context, [prompt.delimiter + a for a in r.answers]


def fill(prompt: PromptSpec, question: Question, order: int = 0) -> Rendered:
    """`render` in parts, with the options rotated left by `order`: shown option j is published option j + order."""
    options = rotate(shown_options(prompt, question), order)
    values = {
        "context": question.context.replace("\n", prompt.turn_separator),
        "question": question.question,
        "options": "\n".join(f"{LETTERS[i]}: {o}" for i, o in enumerate(options)),
        **{LETTERS[i]: o for i, o in enumerate(options)},
    }
    text, passage, last = "", (0, 0), 0
    template = prompt.template
    if not question.context:  # blank lines after an absent passage are no part of the question
        template = re.sub(r"^\{context\}\s*", "", template)
    for match in _PLACEHOLDER.finditer(template):
        if match[1] not in values:
            raise BadInput(
                f"A prompt of task {question.task} uses {match[0]}, but question {question.id} has {len(options)} "
                "options; use {options}, which lists as many as there are."
            )
        text += template[last : match.start()]
        if match[1] == "context":
            passage = (len(text), len(text) + len(values["context"]))
        text += values[match[1]]
        last = match.end()
    answers = options if prompt.answer == "text" else list(LETTERS[: len(options)])
    return Rendered(text + template[last:], passage, tuple(options), tuple(answers))


def fill_unconditional(prompt: PromptSpec, question: Question) -> Rendered:
    """What the options are scored on without passage and question: `prompt.unconditional`, or the template's end.

    The end is what stands after the last placeholder, without white space at its start ("答案：").
    """
    end = max((m.end() for m in _PLACEHOLDER.finditer(prompt.template)), default=0)
    template = prompt.unconditional or prompt.template[end:].lstrip()
    without = replace(question, context="", question="")
    return replace(fill(prompt.model_copy(update={"template": template}), without), passage=(0, 0))


def shows_options(prompt: PromptSpec) -> bool:
    """Whether the model reads the options, so that their order can matter."""
    return bool(_SHOWS_OPTIONS.search(prompt.template))


def shown_options(prompt: PromptSpec, question: Question) -> list[str]:
    """The options' texts as this prompt shows and scores them, in published order."""
    return strip_labels(question.options) if prompt.strip_labels else list(question.options)


def rotate(options: Sequence[str], order: int) -> list[str]:
    """Options rotated left; where every one carries its own letter, the letters stay in place and the texts move."""
    k = order % len(options)
    if not k:
        return list(options)
    bare = strip_labels(options)
    labels = [o[: len(o) - len(b)] for o, b in zip(options, bare)]
    return [label + text for label, text in zip(labels, [*bare[k:], *bare[:k]])]


def strip_labels(options: Sequence[str]) -> list[str]:
    """Options without their "A." "B、" "(C)" where every one carries its own letter; unchanged otherwise."""
    stripped = []
    for letter, option in zip(LETTERS, options):
        match = re.match(_LABEL.format(letter), option)
        if not match:
            return list(options)
        stripped.append(option[match.end() :])
    return stripped

"""A question under a prompt -> the text a model reads and the texts it is scored on."""

import re
from collections.abc import Sequence

from pandallm.errors import BadInput
from pandallm.tasks.spec import PromptSpec
from pandallm.tasks.types import LETTERS, Question

_PLACEHOLDER = re.compile(r"\{(context|question|options|[A-J])\}")
_LABEL = r"\s*[(（]?{}[)）]?\s*[.．。、:：)）]\s*"


def render(prompt: PromptSpec, question: Question) -> tuple[str, list[str]]:
    """(context text, one continuation per option): what is given and what is scored.

    A continuation is `prompt.delimiter` + the option's text or letter, as lm-evaluation-harness builds it. Filled-in
    text is never read for placeholders. Raises BadInput where the template names a letter the question lacks.
    """
    options = list(question.options)
    if prompt.strip_labels:
        options = strip_labels(options)
    values = {
        "context": question.context.replace("\n", prompt.turn_separator),
        "question": question.question,
        "options": "\n".join(f"{LETTERS[i]}: {o}" for i, o in enumerate(options)),
        **{LETTERS[i]: o for i, o in enumerate(options)},
    }

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BadInput(
                f"A prompt of task {question.task} uses {match[0]}, but question {question.id} has {len(options)} "
                "options; use {options}, which lists as many as there are."
            )
        return values[match[1]]

    answers = options if prompt.answer == "text" else list(LETTERS[: len(options)])
    return _PLACEHOLDER.sub(fill, prompt.template), [prompt.delimiter + a for a in answers]


def strip_labels(options: Sequence[str]) -> list[str]:
    """Options without their "A." "B、" "(C)" where every one carries its own letter; unchanged otherwise."""
    stripped = []
    for letter, option in zip(LETTERS, options):
        match = re.match(_LABEL.format(letter), option)
        if not match:
            return list(options)
        stripped.append(option[match.end() :])
    return stripped

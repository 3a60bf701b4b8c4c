"""Questions under prompts, numbers of examples, chat template and orders of options -> what a backend is asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Asked
from pandallm.evaluate.prompts import Rendered, fill, fill_unconditional, shows_options
from pandallm.evaluate.shots import Examples
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.tasks.spec import PromptSpec, TaskSpec
from pandallm.tasks.types import Question

#: Messages (role, content) -> the text that the model reads, up to where it answers.
ChatTemplate = Callable[[Sequence[Mapping[str, str]]], str]


@dataclass(frozen=True)
class Variant:
    """One way of asking: examples before the question, chat template, rotation of the options."""

    shots: int = 0
    chat: bool = False
    order: int = 0


def variants(prompt: PromptSpec, spec: EvaluateSpec) -> list[Variant]:
    """All ways in which `spec` asks under one prompt; rotations only where the prompt shows the options."""
    orders = spec.orders if shows_options(prompt) else 1
    chats = {"off": (False,), "on": (True,), "both": (False, True)}[spec.chat]
    return [Variant(s, c, o) for s in spec.shots for c in chats for o in range(orders)]


def ask(
    prompt: PromptSpec,
    question: Question,
    variant: Variant,
    examples: Examples | None = None,
    template: ChatTemplate | None = None,
    cut: bool = True,
) -> tuple[Asked, Rendered]:
    """What a backend is asked, and its parts.

    Without chat: the examples (prompt, delimiter, answer) and the prompt, `prompt.few_shot` between them. With chat: a
    turn of the user and one of the assistant per example, then the prompt as the user's last turn; the answer follows
    the template at once, without the delimiter. `cut`: whether tokens of the passage may be left out.
    """
    shown = fill(prompt, question, variant.order)
    drawn = examples.draw(question, variant.shots) if examples is not None and variant.shots else []
    turns = [(r.context, r.answers[e.answer]) for e in drawn for r in [fill(prompt, e)]]
    if variant.chat:
        return _in_chat(shown, turns, shown.answers, template, cut), shown
    before = "".join(context + prompt.delimiter + answer + prompt.few_shot for context, answer in turns)
    passage = (len(before) + shown.passage[0], len(before) + shown.passage[1]) if cut else (0, 0)
    continuations = tuple(prompt.delimiter + a for a in shown.answers)
    return Asked(before + shown.context, continuations, passage), shown


def ask_unconditional(
    prompt: PromptSpec, question: Question, chat: bool, template: ChatTemplate | None = None
) -> Asked:
    """The same options without passage and question; no examples."""
    shown = fill_unconditional(prompt, question)
    if chat:
        return _in_chat(shown, [], shown.answers, template, False)
    return Asked(shown.context, tuple(prompt.delimiter + a for a in shown.answers))


def _in_chat(
    shown: Rendered,
    turns: Sequence[tuple[str, str]],
    answers: Sequence[str],
    template: ChatTemplate | None,
    cut: bool,
) -> Asked:
    messages = [
        m
        for context, answer in turns
        for m in ({"role": "user", "content": context}, {"role": "assistant", "content": answer})
    ]
    messages.append({"role": "user", "content": shown.context})
    # Without a template (a server has its own) the text is only a name for the turns.
    text = template(messages) if template else "\n\n".join(m["content"] for m in messages)
    return Asked(text, tuple(answers), _passage_in(text, shown) if cut else (0, 0), tuple(messages))


def _passage_in(text: str, shown: Rendered) -> tuple[int, int]:
    """Where the passage lies in the templated text; templates may strip a turn's white space."""
    turn = shown.context.strip()
    at = text.rfind(turn) if turn else -1
    if at < 0:
        return (0, 0)
    shift = at - shown.context.index(turn)
    return (max(at, shown.passage[0] + shift), max(at, min(at + len(turn), shown.passage[1] + shift)))


def chat_template(tokenizer: Any, folder: Path) -> ChatTemplate:
    """The tokenizer's own template, up to where the assistant answers. Raises BadInput for a model without one."""
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"{folder} has no chat template; score it with `chat: off`, or give a model that was trained with one."
        )

    def apply(messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return str(
                tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
            )
        except Exception as e:  # whatever the template's own code raises
            raise BadInput(
                f"The chat template of {folder} fails on these turns ({e}); score with `chat: off`."
            ) from None

    return apply


def by_passage(questions: Sequence[Question]) -> Iterator[tuple[str, list[int]]]:
    """(passage, indices of its questions), in order of first sight; a question without passage is its own."""
    passages: dict[str, list[int]] = {}
    for i, q in enumerate(questions):
        passages.setdefault(q.context or f"\0{i}", []).append(i)
    yield from passages.items()


@dataclass(frozen=True)
class Item:
    """One thing to ask: question number `question` under a prompt and variant; `shown` is None where the options are
    scored without passage and question."""

    prompt: str
    variant: Variant
    question: int
    group: str
    asked: Asked
    shown: Rendered | None


#: Questions whose options are scored without passage in one group: they share no more than a line.
UNCONDITIONAL_GROUP = 64


def items(
    task: TaskSpec,
    names: Sequence[str],
    questions: Sequence[Question],
    spec: EvaluateSpec,
    examples: Examples | None,
    template: ChatTemplate | None,
    unconditional: bool,
) -> list[Item]:
    """Everything that one task asks, all prompts of a passage together; then the options alone, where wanted."""
    cut = spec.on_long == "cut"
    ways = [(name, v) for name in names for v in variants(task.prompts[name], spec)]
    out = []
    for passage, of in by_passage(questions):
        for name, v in ways:
            for i in of:
                if v.order < len(questions[i].options):
                    asked, shown = ask(task.prompts[name], questions[i], v, examples, template, cut)
                    out.append(Item(name, v, i, passage, asked, shown))
    if unconditional:
        for name in names:
            prompt = task.prompts[name]
            if prompt.answer != "text":
                continue
            for chat in dict.fromkeys(v.chat for n, v in ways if n == name):
                for i, q in enumerate(questions):
                    asked = ask_unconditional(prompt, q, chat, template)
                    group = f"\0{name} {chat} {i // UNCONDITIONAL_GROUP}"
                    out.append(Item(name, Variant(chat=chat), i, group, asked, None))
    return out

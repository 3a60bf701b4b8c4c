from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pandallm.errors import BadInput
from pandallm.evaluate.ask import Variant, ask, ask_unconditional, chat_template, items, variants
from pandallm.evaluate.prompts import fill, rotate
from pandallm.evaluate.shots import Examples
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.tasks.spec import PromptSpec, TaskSpec
from pandallm.tasks.types import Question

TEMPLATE = (
    "<eos>{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture
def chatting(model_folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def pool() -> list[Question]:
    """What the fixture's questions may have before them: other passages that ask something else."""
    return [
        Question(f"e{i}", "lake", f"e{i}", f"例文{i}。", f"什么颜色？{i}", ("红", "蓝"), i % 2, "dev") for i in range(6)
    ]


def test_examples_stand_before_the_question_with_their_answers(task: TaskSpec, questions: list[Question]) -> None:
    prompt = task.prompts["text"]
    examples = Examples(questions, pool())
    asked, _ = ask(prompt, questions[0], Variant(shots=2), examples)
    first, second = examples.draw(questions[0], 2)
    before = "".join(fill(prompt, e).context + prompt.delimiter + e.options[e.answer] + "\n\n" for e in (first, second))
    assert asked.context == before + fill(prompt, questions[0]).context
    assert asked.continuations == tuple(" " + o for o in questions[0].options)
    start, end = asked.passage
    assert asked.context[start:end] == questions[0].context
    assert start == len(before)
    assert questions[0].context not in before
    assert asked.messages is None


def test_under_chat_the_text_is_what_the_tokenizer_makes_of_the_turns(
    task: TaskSpec, questions: list[Question], chatting: Any, model_folder: Path
) -> None:
    prompt = task.prompts["text"]
    examples = Examples(questions, pool())
    (e,) = examples.draw(questions[3], 1)
    asked, _ = ask(prompt, questions[3], Variant(1, True), examples, chat_template(chatting, model_folder))
    turns = [
        {"role": "user", "content": fill(prompt, e).context},
        {"role": "assistant", "content": e.options[e.answer]},
        {"role": "user", "content": fill(prompt, questions[3]).context},
    ]
    assert asked.context == chatting.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked.messages == tuple(turns)
    assert asked.continuations == questions[3].options  # no delimiter
    assert asked.context[slice(*asked.passage)] == questions[3].context
    tokens = chatting.apply_chat_template(turns, add_generation_prompt=True)
    from pandallm.evaluate.encode import tokenize

    assert tokenize(chatting, [asked.context])[0] == list(
        tokens["input_ids"] if isinstance(tokens, Mapping) else tokens
    )


def test_a_passage_is_found_behind_what_the_template_trims(chatting: Any, model_folder: Path) -> None:
    q = Question("1", "t", "c", "他他他", "他？", ("他", "她"), 0)
    asked, _ = ask(
        PromptSpec(template="\n \n{context}\n{question}{context}"),
        replace(q, context="  他他他"),
        Variant(chat=True),
        template=chat_template(chatting, model_folder),
    )
    # The last of two places, which stands after the question, is the one that the template fills in last.
    assert asked.context[slice(*asked.passage)] == "  他他他"


def test_a_model_without_a_template_is_refused(model_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    with pytest.raises(BadInput, match="no chat template"):
        chat_template(tokenizer, model_folder)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadInput, match="roles must alternate"):
        chat_template(tokenizer, model_folder)([{"role": "user", "content": "x"}])


def test_rotations_only_where_the_options_are_shown(task: TaskSpec, questions: list[Question]) -> None:
    spec = EvaluateSpec(orders=3, chat="both", shots=(0, 2))
    assert len(variants(task.prompts["text"], spec)) == 4
    assert len(variants(task.prompts["letter"], spec)) == 12
    asked, shown = ask(task.prompts["letter"], questions[0], Variant(order=1))
    assert shown.options == ("山上", "海边的城里", "湖边")
    assert "A: 山上\nB: 海边的城里\nC: 湖边" in asked.context
    assert asked.continuations == ("A", "B", "C")
    made = items(task, ["letter"], questions, EvaluateSpec(orders=3), None, None, False)
    by_question = [sum(i.question == q for i in made) for q in range(len(questions))]
    assert by_question == [min(3, len(q.options)) for q in questions]  # two options have two orders


def test_labels_stay_in_place_when_texts_rotate() -> None:
    assert rotate(["A.一", "B.二", "C.三"], 1) == ["A.二", "B.三", "C.一"]
    assert rotate(["一", "二", "三"], 2) == ["三", "一", "二"]
    assert rotate(["一", "二"], 2) == ["一", "二"]


def test_unconditional_is_the_prompts_end_without_passage_and_question(
    task: TaskSpec, questions: list[Question]
) -> None:
    asked = ask_unconditional(task.prompts["text"], questions[0], False)
    assert (asked.context, asked.continuations) == ("答案：", tuple(" " + o for o in questions[0].options))
    own = task.prompts["text"].model_copy(update={"unconditional": "回答："})
    assert ask_unconditional(own, questions[0], False).context == "回答："
    made = items(task, ["text", "letter"], questions, EvaluateSpec(), None, None, True)
    assert sum(i.shown is None for i in made) == len(questions)  # letters have none


def test_refusing_long_prompts_leaves_nothing_to_cut(task: TaskSpec, questions: list[Question]) -> None:
    made: Sequence[Any] = items(task, ["text"], questions, EvaluateSpec(on_long="refuse"), None, None, False)
    assert {i.asked.passage for i in made} == {(0, 0)}

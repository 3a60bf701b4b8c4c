import re
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.evaluate.prompts import render, strip_labels
from pandallm.evaluate.select import selected_prompts
from pandallm.tasks.load import load_task
from pandallm.tasks.open import open_task
from pandallm.tasks.spec import PromptSpec, TaskSpec
from pandallm.tasks.types import Question
from tests.tasks.records import FILES, write_records

DIALOGUE = Question("d", "c3-d", "c", "男：去哪儿?\n女：{A}湖边。", "去哪儿?", ("山", "湖{B}", "家"), 1)


def test_the_paper_prompt_to_the_character() -> None:
    context, continuations = render(load_task("c3-d").prompts["paper"], DIALOGUE)
    assert context == (
        "阅读下面的文章并从选项中选择的答案回答问题：\n\n\n\n男：去哪儿? 女：{A}湖边。\n\n问题：\n去哪儿?\n\n选项：\n"
        "A: 山\nB: 湖{B}\nC: 家\n\n\n本题的答案是："
    )
    assert continuations == ["A", "B", "C"]


def test_text_answers_and_delimiter() -> None:
    prompt = PromptSpec(template="{question} {A}/{B}", answer="text", delimiter=" ")
    assert render(prompt, DIALOGUE) == ("去哪儿? 山/湖{B}", [" 山", " 湖{B}", " 家"])
    with pytest.raises(BadInput, match="3 options"):
        render(PromptSpec(template="{D}"), DIALOGUE)


def test_labels_are_stripped_only_where_all_options_carry_their_own() -> None:
    assert strip_labels(["A.一", "B、二", "（C）三"]) == ["一", "二", "三"]
    assert strip_labels(["A.一", "C.二"]) == ["A.一", "C.二"]
    assert strip_labels(["A股", "B股"]) == ["A股", "B股"]
    labelled = Question("l", "t", "c", "", "?", ("A.一", "B.二"), 0)
    assert render(load_task("logiqa2-zh").prompts["text"], labelled)[1] == ["一", "二"]
    assert "A: A.一" in render(load_task("logiqa2-zh").prompts["paper"], labelled)[0]


def test_missing_prompt_names_the_nearest(task: TaskSpec) -> None:
    assert selected_prompts(task, "all") == ["letter", "text"]
    assert selected_prompts(task, ("text",)) == ["text"]
    with pytest.raises(BadInput, match="did you mean 'letter'"):
        selected_prompts(task, ("leter",))


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_prompt_of_every_benchmark_asks_its_records(name: str, tmp_path: Path) -> None:
    task, read = open_task(name, write_records(name, tmp_path))
    for question in read.questions:
        for prompt in task.prompts.values():
            context, continuations = render(prompt, question)
            assert question.question in context
            assert question.context.replace("\n", prompt.turn_separator) in context
            assert context == context.lstrip()  # no blank lines where a question has no passage
            assert len(continuations) == len(question.options)
            assert not re.search(r"\{[a-zA-Z]+\}", context)

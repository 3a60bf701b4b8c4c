"""baike2018qa: qid, category, title, desc, answer."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, lines, question_answer, text_field
from pandallm.data.adapters.templates import Templates, own_templates


def question_text(title: str, desc: str) -> str:
    """Title, and the description where it says more than the title."""
    title, desc = title.strip(), desc.strip()
    return title if desc in title else desc if title in desc else lines(title, desc)


def adapt(record: Mapping[str, Any], options: Options, templates: Templates | None = None) -> Adapted | Skip:
    """An instruction around title and description, untrained; the answer trained.

    The prompt is masked because all answers share few templates, which would dominate the loss.
    """
    answer = text_field(record, "answer")
    question = question_text(text_field(record, "title"), text_field(record, "desc"))
    if not question:
        return Skip("no_question")
    prompt = (templates or own_templates("baike_qa")).fill("question", question, question + answer)
    return Skip("no_template") if prompt is None else question_answer(prompt, answer)


ADAPTER = Adapter("baike_qa", ("qid", "category", "title", "desc", "answer"), adapt, placeholders=("question",))

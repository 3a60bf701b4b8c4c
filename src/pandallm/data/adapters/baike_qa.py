"""baike2018qa: qid, category, title, desc, answer."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, draw, lines, question_answer, text_field

#: Our own: the paper's templates were never published.
TEMPLATES = (
    "请回答下面的问题。\n{question}\n回答：",
    "问题：{question}\n回答：",
    "有人在网上提问：{question}\n请给出详细的解答：",
    "{question}\n请针对以上问题给出你的回答：",
)


def question_text(title: str, desc: str) -> str:
    """Title, and the description where it says more than the title."""
    title, desc = title.strip(), desc.strip()
    return title if desc in title else desc if title in desc else lines(title, desc)


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """An instruction around title and description, untrained; the answer trained.

    The prompt is masked because all answers share few templates, which would dominate the loss.
    """
    answer = text_field(record, "answer")
    question = question_text(text_field(record, "title"), text_field(record, "desc"))
    if not question:
        return Skip("no_question")
    return question_answer(draw(TEMPLATES, question + answer).replace("{question}", question), answer)


ADAPTER = Adapter("baike_qa", ("qid", "category", "title", "desc", "answer"), adapt)

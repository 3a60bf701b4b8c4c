"""webtext2019zh: qid, title, desc, topic, star, content, answer_id, answerer_tags."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.baike_qa import question_text
from pandallm.data.adapters.base import (
    Adapted,
    Adapter,
    Options,
    Skip,
    draw,
    optional_field,
    question_answer,
    text_field,
)

TEMPLATES = (
    "请回答社区里的这个问题。\n{question}\n回答：",
    "{question}\n你怎么看？请写下你的回答：",
    "网友提问：{question}\n回答：",
    "阅读下面的问题，并分享你的见解。\n{question}\n见解：",
)
#: For posts without a question, such as reviews, which only name their topic.
TOPIC_TEMPLATES = ("请写一段与“{topic}”有关的文字：", "话题：{topic}\n内容：")


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """An instruction around title and description (else around the topic), untrained; `content` trained."""
    content = text_field(record, "content")
    question = question_text(text_field(record, "title"), text_field(record, "desc"))
    topic = optional_field(record, "topic").strip()
    if question:
        return question_answer(draw(TEMPLATES, question + content).replace("{question}", question), content)
    if topic:
        return question_answer(draw(TOPIC_TEMPLATES, topic + content).replace("{topic}", topic), content)
    return Skip("no_question")


ADAPTER = Adapter(
    "webtext_qa", ("qid", "title", "desc", "topic", "star", "content", "answer_id", "answerer_tags"), adapt
)

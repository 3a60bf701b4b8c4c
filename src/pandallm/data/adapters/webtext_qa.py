"""webtext2019zh: qid, title, desc, topic, star, content, answer_id, answerer_tags."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.baike_qa import question_text
from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, optional_field, question_answer, text_field
from pandallm.data.adapters.templates import Templates, own_templates


def adapt(record: Mapping[str, Any], options: Options, templates: Templates | None = None) -> Adapted | Skip:
    """An instruction around title and description (else around the topic), untrained; `content` trained."""
    content = text_field(record, "content")
    question = question_text(text_field(record, "title"), text_field(record, "desc"))
    topic = optional_field(record, "topic").strip()
    if not question and not topic:
        return Skip("no_question")
    placeholder, text = ("question", question) if question else ("topic", topic)
    prompt = (templates or own_templates("webtext_qa")).fill(placeholder, text, text + content)
    return Skip("no_template") if prompt is None else question_answer(prompt, content)


ADAPTER = Adapter(
    "webtext_qa",
    ("qid", "title", "desc", "topic", "star", "content", "answer_id", "answerer_tags"),
    adapt,
    placeholders=("question", "topic"),
)

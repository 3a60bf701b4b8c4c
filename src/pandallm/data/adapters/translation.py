"""translation2019zh: english, chinese."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, draw, question_answer, text_field
from pandallm.data.adapters.templates import Templates, own_templates

DIRECTIONS = ("en-zh", "zh-en", "both-by-hash")


def adapt(record: Mapping[str, Any], options: Options, templates: Templates | None = None) -> Adapted | Skip:
    """One side with an instruction, untrained; the translation trained, and its language is the example's.

    Option `direction`: `en-zh`, `zh-en` or `both-by-hash` (default: one of the two per record, by content hash; a record
    is one example, so that the ledger adds up).
    """
    english, chinese = text_field(record, "english").strip(), text_field(record, "chinese").strip()
    if not english or not chinese:
        return Skip("untranslated")
    direction = options.get("direction", "both-by-hash")
    if direction == "both-by-hash":
        direction = draw(("en-zh", "zh-en"), f"direction {english}{chinese}")
    to_chinese = direction == "en-zh"
    shown, text = ("english", english) if to_chinese else ("chinese", chinese)
    prompt = (templates or own_templates("translation")).fill(shown, text, english + chinese)
    if prompt is None:
        return Skip("no_template")
    return question_answer(prompt, chinese, "zh") if to_chinese else question_answer(prompt, english, "en")


ADAPTER = Adapter(
    "translation", ("english", "chinese"), adapt, {"direction": DIRECTIONS}, placeholders=("english", "chinese")
)

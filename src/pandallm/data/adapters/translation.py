"""translation2019zh: english, chinese."""

from collections.abc import Mapping
from typing import Any

from pandallm.data.adapters.base import Adapted, Adapter, Options, Skip, draw, question_answer, text_field

TO_CHINESE = (
    "把下面的英文翻译成中文。\n{text}\n译文：",
    "请将这段英文译为中文：\n{text}\n中文：",
    "Translate the following English text into Chinese.\n{text}\nChinese:",
)
TO_ENGLISH = (
    "把下面的中文翻译成英文。\n{text}\n译文：",
    "请将这段中文译为英文：\n{text}\n英文：",
    "Translate the following Chinese text into English.\n{text}\nEnglish:",
)
DIRECTIONS = ("en-zh", "zh-en", "both-by-hash")


def adapt(record: Mapping[str, Any], options: Options) -> Adapted | Skip:
    """One side with an instruction, untrained; the translation trained, and its language is the example's.

    Option `direction`: `en-zh`, `zh-en` or `both-by-hash` (default: one of the two per record, by content hash).
    """
    english, chinese = text_field(record, "english").strip(), text_field(record, "chinese").strip()
    if not english or not chinese:
        return Skip("untranslated")
    direction = options.get("direction", "both-by-hash")
    if direction == "both-by-hash":
        direction = draw(("en-zh", "zh-en"), f"direction {english}{chinese}")
    if direction == "en-zh":
        prompt = draw(TO_CHINESE, english + chinese).replace("{text}", english)
        return question_answer(prompt, chinese, "zh")
    prompt = draw(TO_ENGLISH, english + chinese).replace("{text}", chinese)
    return question_answer(prompt, english, "en")


ADAPTER = Adapter("translation", ("english", "chinese"), adapt, {"direction": DIRECTIONS})

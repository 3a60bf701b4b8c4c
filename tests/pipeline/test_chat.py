from typing import Any

from pandallm.pipeline.chat import prompt_ids


class Letters:
    """A tokenizer of one id per character, without a chat template."""

    chat_template: Any = None
    bos_token_id = None
    eos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(c) for c in text]


def test_without_a_template_a_dialogue_reads_as_training_writes_it() -> None:
    turns = [
        {"role": "user", "content": "问\\n甲"},
        {"role": "assistant", "content": "答"},
        {"role": "user", "content": "再问\n"},
    ]
    assert prompt_ids(Letters(), turns) == [*map(ord, "问\n甲\n"), ord("答"), 0, *map(ord, "再问\n")]

"""The chat template that a stage's dialogues were written with goes with the model."""

from pathlib import Path
from typing import Any

from pandallm.store import read_json

#: Attribute of config.json: the recipe's name of the template that dialogues were learnt with.
TEMPLATE_NAME = "pandallm_chat_template"


def carry_template(packs: Path, model: Any, tokenizer: Any) -> None:
    """Give model and tokenizer what the packs folder says of its chat template; nothing where it has none.

    The tokenizer gets the template, the model's generation settings get the token that ends an answer beside EOS: `panda chat`,
    `panda eval`, transformers and servers read both from the saved folder. config.json gets the template's name, so that
    an evaluation without it can say so.
    """
    file = packs / "chat_template.jinja"
    if not file.is_file():
        return
    facts = read_json(packs / "pack.json")
    tokenizer.chat_template = file.read_text(encoding="utf-8")
    setattr(model.config, TEMPLATE_NAME, facts["chat_template"]["name"])
    ends = list(dict.fromkeys((facts["chat_template"]["end_of_turn_id"], facts["eos_id"])))
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]

"""What a stage's packs say of their chat template goes with the model."""

from pathlib import Path
from types import SimpleNamespace

from pandallm.store import write_json
from pandallm.train.chat import carry_template


def test_template_and_end_of_turn_go_with_the_model(tmp_path: Path) -> None:
    model = SimpleNamespace(config=SimpleNamespace(), generation_config=SimpleNamespace(eos_token_id=0))
    tokenizer = SimpleNamespace(chat_template="of the start")
    carry_template(tmp_path, model, tokenizer)
    assert (tokenizer.chat_template, model.generation_config.eos_token_id) == ("of the start", 0)
    assert not vars(model.config)
    (tmp_path / "chat_template.jinja").write_text("new", encoding="utf-8")
    for end, wanted in ((7, [7, 3]), (3, 3)):
        write_json(tmp_path / "pack.json", {"eos_id": 3, "chat_template": {"name": "chatml", "end_of_turn_id": end}})
        carry_template(tmp_path, model, tokenizer)
        assert (tokenizer.chat_template, model.generation_config.eos_token_id) == ("new", wanted)
    assert vars(model.config) == {"pandallm_chat_template": "chatml"}

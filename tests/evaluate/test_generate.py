from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pandallm.evaluate.generate import generate

PROMPTS = ["问题：", "小明住在湖边的城里，他养了一只猫。问题：小明住在哪里？", "The answer is"]


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32
    ).eval(), AutoTokenizer.from_pretrained(model_folder)


def greedy(model: Any, tokenizer: Any, ids: list[int], steps: int) -> str:
    """No cache, no batch, no padding."""
    new: list[int] = []
    with torch.inference_mode():
        for _ in range(steps):
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_batches_say_what_single_passes_say(loaded: tuple[Any, Any], batch_tokens: int) -> None:
    model, tokenizer = loaded
    ids = [tokenizer.encode(p) for p in PROMPTS]
    found = {i: text for batch in generate(model, tokenizer, ids, 9, batch_tokens) for i, text in batch}
    assert found == {i: greedy(model, tokenizer, p, 9) for i, p in enumerate(ids)}
    assert all(found.values())


def test_eos_ends_a_completion(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    ids = [tokenizer.encode(p) for p in PROMPTS]
    first = model(torch.tensor([ids[0]])).logits[0, -1].argmax()
    stored = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [0, int(first)]
    try:
        found = {i: text for batch in generate(model, tokenizer, ids, 9, 10_000) for i, text in batch}
    finally:
        model.generation_config.eos_token_id = stored
    assert found[0] == ""


def test_settled_rows_stop_the_loop(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    ids = [tokenizer.encode(p) for p in PROMPTS]
    found = {i: t for batch in generate(model, tokenizer, ids, 9, 10_000, lambda i, text: True) for i, t in batch}
    assert found == {i: greedy(model, tokenizer, p, 4) for i, p in enumerate(ids)}

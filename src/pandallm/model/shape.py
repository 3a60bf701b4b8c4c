"""Sizes and costs of a decoder, from the few numbers of its config alone (no torch).

A: heads, K: key-value heads, H: head size, D: width, F: MLP width, L: layers, V: rows of the embedding, T: context length in tokens.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pandallm.errors import BadInput
from pandallm.model.spec import ArchitectureSpec, ShapeSpec

#: Families whose layers are a gated MLP and (grouped) attention, counted exactly here.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_NEEDED = "hidden_size, layers, heads, kv_heads, intermediate_size and vocab_size"


@dataclass(frozen=True)
class ModelShape:
    """A Llama-like decoder in numbers."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int = 2048
    tie_embeddings: bool = False
    attention_bias: bool = False  # of query, key and value
    output_bias: bool = False  # of the attention's output, as Llama's attention_bias adds too
    query_key_norm: bool = False  # one norm over the head size each, as in Qwen3

    @property
    def matrices_per_layer(self) -> int:
        """Weights of one layer's linear maps: D(2A + 2K)H + 3DF."""
        attention = self.hidden_size * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_parameters(self) -> int:
        """All weights of one layer: linear maps, biases, norms."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_size if self.attention_bias else 0
        biases += self.hidden_size if self.output_bias else 0
        norms = 2 * self.hidden_size + (2 * self.head_size if self.query_key_norm else 0)
        return self.matrices_per_layer + biases + norms

    @property
    def embedding_parameters(self) -> int:
        """Embedding and head, counted once where they are tied."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All different weights, as transformers' `num_parameters()` counts them."""
        return self.layers * self.layer_parameters + self.embedding_parameters + self.hidden_size

    def flops_per_token(self, context: float = 0.0, trained_share: float = 1.0) -> float:
        """Floating point operations of one token's forward at a mean context of `context` tokens, 2 per multiply-add.

        Linear maps 2 x weights, the head for the `trained_share` of tokens that predict one, and causal attention 2 x 2 x L x A x H x context/2
        (Chowdhery et al. 2022, PaLM, appendix B, halved for the causal mask).
        """
        attention = 2.0 * self.layers * self.heads * self.head_size * context
        head = 2.0 * self.vocab_size * self.hidden_size * trained_share
        return 2.0 * self.layers * self.matrices_per_layer + attention + head

    def training_flops_per_token(
        self, context: float = 0.0, trained_share: float = 1.0, *, checkpointing: bool = False
    ) -> float:
        """Forward and backward of one token: 3 x the forward; 4 x of the layers where they are computed again."""
        forward = self.flops_per_token(context, trained_share)
        again = self.flops_per_token(context, 0.0) if checkpointing else 0.0
        return 3 * forward + again

    def with_vocabulary(self, rows: int) -> "ModelShape":
        """The same model with another number of embedding rows."""
        return replace(self, vocab_size=rows)


def shape_of_config(config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
    """The shape of a transformers config. Raises BadInput for another family than FAMILIES, or a missing number."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise BadInput(
            f"{where}: sizes of model_type {family!r} are not known (only {', '.join(FAMILIES)}); give base.shape with {_NEEDED}."
        )
    try:
        heads = int(config["num_attention_heads"])
        bias = bool(config.get("attention_bias", family == "qwen2"))
        return ModelShape(
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            intermediate_size=int(config["intermediate_size"]),
            vocab_size=int(config["vocab_size"]),
            max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bias or family == "qwen2",
            output_bias=bias and family in ("llama", "qwen3"),
            query_key_norm=family == "qwen3",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as e:
        raise BadInput(f"{where} lacks a number of the model's shape ({e}); give base.shape with {_NEEDED}.") from None


def shape_of_spec(spec: ShapeSpec) -> ModelShape:
    """The shape that a recipe states under base.shape."""
    return ModelShape(
        hidden_size=spec.hidden_size,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads or spec.heads,
        head_size=spec.head_size or spec.hidden_size // spec.heads,
        intermediate_size=spec.intermediate_size,
        vocab_size=spec.vocab_size,
        max_position_embeddings=spec.max_position_embeddings,
        tie_embeddings=spec.tie_embeddings,
        attention_bias=spec.attention_bias,
    )


def shape_of_scratch(spec: ArchitectureSpec, vocab_size: int) -> ModelShape:
    """The shape of a base from scratch; its rows are padded to a multiple of 64 as `model/scratch.py` does."""
    return ModelShape(
        hidden_size=spec.hidden_size,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads or spec.heads,
        head_size=spec.hidden_size // spec.heads,
        intermediate_size=spec.intermediate_size,
        vocab_size=(vocab_size + 63) // 64 * 64,
        max_position_embeddings=spec.max_position_embeddings,
        tie_embeddings=spec.tie_embeddings,
    )


def known_configs() -> dict[str, dict[str, Any]]:
    """Config numbers of well-known open bases by hub id."""
    text = (resources.files("pandallm.model") / "known.yaml").read_text(encoding="utf-8")
    configs: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return configs


def shape_of_model(model: str, shape: ShapeSpec | None = None) -> ModelShape:
    """The shape of a model folder or hub id, offline: `shape` where given, the folder's config.json, or the shipped table.

    Raises BadInput, naming the numbers to give under base.shape, where there is none of them.
    """
    if shape is not None:
        return shape_of_spec(shape)
    file = Path(model).expanduser() / "config.json"
    if file.is_file():
        try:
            return shape_of_config(json.loads(file.read_text(encoding="utf-8")), str(file))
        except (ValueError, UnicodeDecodeError) as e:
            if isinstance(e, BadInput):
                raise
            raise BadInput(f"{file} cannot be read as JSON ({e}); give base.shape with {_NEEDED}.") from None
    by_name = {name.lower(): config for name, config in known_configs().items()}
    if config := by_name.get(model.lower()):
        return shape_of_config(config, f"known.yaml: {model}")
    raise BadInput(f"The config of base.model {model} is not at hand; give base.shape with {_NEEDED}.")


#: Tokens that Chinese text takes after so many new pieces, as a share of those before: measured with SmolLM2 (docs/vocabulary.md).
_EXTENDED = ((0, 1.0), (1_000, 0.625), (2_000, 0.544), (4_000, 0.482), (8_000, 0.436))


def tokens_per_byte(vocab_size: int, new_pieces: int = 0) -> dict[str, float]:
    """Tokens per UTF-8 byte by language (zh, en, other) for a vocabulary of so many tokens, as the shipped table says.

    new_pieces: Chinese pieces that base.extend adds.
    """
    text = (resources.files("pandallm.model") / "tokens_per_byte.yaml").read_text(encoding="utf-8")
    table: dict[int, dict[str, float]] = yaml.safe_load(text)
    nearest = min((size for size in table if size), key=lambda size: abs(size - vocab_size))
    found = table[nearest if abs(nearest - vocab_size) <= 0.02 * vocab_size else 0]
    found = {"other": table[0]["other"], **found}
    return {**found, "zh": found["zh"] * extended_share(new_pieces)}


def extended_share(new_pieces: int) -> float:
    """Tokens of Chinese text with so many new pieces, as a share of those without; between measured sizes along a line."""
    for (below, a), (above, b) in itertools.pairwise(_EXTENDED):
        if new_pieces <= above:
            return a + (b - a) * (new_pieces - below) / (above - below)
    return _EXTENDED[-1][1]

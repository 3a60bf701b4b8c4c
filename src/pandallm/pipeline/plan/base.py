"""What a plan must know of the base: its shape, and a tokenizer where one is at hand. Nothing is downloaded."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pandallm.errors import BadInput
from pandallm.model.shape import ModelShape, shape_of_config, shape_of_model, shape_of_scratch, shape_of_spec

if TYPE_CHECKING:
    from pandallm.recipe.spec import BaseSpec


def base_shape(base: "BaseSpec", start: Path | None) -> ModelShape:
    """The shape of the model that training starts from.

    start: its folder where it is in the store already. A vocabulary that base.extend or a scratch tokenizer has yet to make
    is taken at its largest. Raises BadInput where the shape cannot be known; it names the numbers to give.
    """
    if start is not None:
        return shape_of_config(json.loads((start / "config.json").read_text(encoding="utf-8")), str(start))
    if base.scratch:
        return shape_of_scratch(base.scratch.architecture, base.scratch.tokenizer.size)
    if base.shape:
        shape = shape_of_spec(base.shape)
    elif base.gguf:
        from pandallm.model.gguf import find_gguf

        shape = gguf_shape(find_gguf(base.gguf))
    else:
        assert base.model is not None
        cached = hub_folder(base.model)
        shape = shape_of_model(str(cached or base.model))
    if base.extend:
        pad = base.extend.pad_to_multiple
        shape = shape.with_vocabulary(-(-(shape.vocab_size + base.extend.size) // pad) * pad)
    return shape


def hub_folder(model: str) -> Path | None:
    """The newest snapshot of a hub id in this machine's cache that holds a config, or None."""
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(os.environ.get("HF_HOME", "~/.cache/huggingface"), "hub")
    folder = Path(cache).expanduser() / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [p for p in folder.glob("*") if (p / "config.json").is_file()] if "/" in model else []
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def tokenizer_folder(base: "BaseSpec", start: Path | None) -> tuple[Path | None, bool]:
    """A folder with the tokenizer that text will be cut with, and whether it is that of the base before base.extend."""
    if start is not None:
        return start, False
    if base.model:
        for folder in (Path(base.model).expanduser(), hub_folder(base.model)):
            if folder is not None and (folder / "tokenizer.json").is_file():
                return folder, base.extend is not None
    return None, False


def gguf_shape(file: Path) -> ModelShape:
    """The shape that a GGUF file states. Raises BadInput where numbers are missing or the reader is not installed."""
    try:
        import gguf
    except ImportError:
        raise BadInput(f"{file}: planning with a GGUF base needs the package gguf (`pip install gguf`).") from None
    try:
        reader = gguf.GGUFReader(str(file))
    except (OSError, ValueError, KeyError) as e:
        raise BadInput(f"{file} is not a readable GGUF file ({e}); give base.shape.") from None
    fields = reader.fields

    def number(name: str) -> int:
        field = fields.get(name)
        if field is None:
            raise BadInput(f"{file} lacks {name}; give base.shape with the model's sizes.")
        return int(field.parts[field.data[0]][0])

    family = bytes(fields["general.architecture"].parts[fields["general.architecture"].data[0]]).decode()
    heads = number(f"{family}.attention.head_count")
    width = number(f"{family}.embedding_length")
    head = f"{family}.attention.key_length"
    names = {t.name for t in reader.tensors}
    return ModelShape(
        hidden_size=width,
        layers=number(f"{family}.block_count"),
        heads=heads,
        kv_heads=number(f"{family}.attention.head_count_kv"),
        head_size=number(head) if head in fields else width // heads,
        intermediate_size=number(f"{family}.feed_forward_length"),
        vocab_size=len(fields["tokenizer.ggml.tokens"].data),
        max_position_embeddings=number(f"{family}.context_length"),
        tie_embeddings="output.weight" not in names,
        attention_bias="blk.0.attn_q.bias" in names,
        query_key_norm="blk.0.attn_q_norm.weight" in names,
    )

"""What a plan must know of the base: its shape, and a tokenizer where one is at hand. Nothing is downloaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput
from pandallm.model.shape import ModelShape, shape_of_config, shape_of_model, shape_of_scratch, shape_of_spec
from pandallm.store import read_json

if TYPE_CHECKING:
    from pandallm.model.spec import ShapeSpec
    from pandallm.recipe.spec import BaseSpec


def base_shape(
    base: "BaseSpec", start: Path | None, *, original: Path | None = None, notes: list[str] | None = None
) -> ModelShape:
    """The shape of the model that training starts from.

    start: its folder where it is in the store already; original: that of the base before base.extend. A vocabulary that
    base.extend or a scratch tokenizer has yet to make is taken at its largest.
    A config that is at hand (store, folder, hub's cache, GGUF file) counts more than base.shape, and that more than the shipped
    list; `notes` gets a sentence for each number of base.shape that the config contradicts.
    Raises BadInput where the shape cannot be known; it names the numbers to give.
    """
    if base.scratch:
        return _of_folder(start) if start else shape_of_scratch(base.scratch.architecture, base.scratch.tokenizer.size)
    found = original or (None if base.extend else start)
    if base.shape is None:
        shape = _of_folder(found) if found else _of_base(base)
    else:
        try:
            shape = _of_folder(found) if found else _at_hand(base)
            if notes is not None:
                notes += _contradicted(base.shape, shape)
        except BadInput:  # no config here, or one of a family that is not known
            shape = shape_of_spec(base.shape)
    if base.extend and start:
        return shape.with_vocabulary(_config(start)["vocab_size"])
    if base.extend:
        pad = base.extend.pad_to_multiple
        shape = shape.with_vocabulary(-(-(shape.vocab_size + base.extend.size) // pad) * pad)
    return shape


def stage_shape(base: "BaseSpec", start: Path) -> ModelShape:
    """The shape of the model that a stage starts from, which lies in `start`. Raises BadInput where it cannot be known."""
    try:
        return _of_folder(start)
    except BadInput:
        if base.shape is None:
            raise
        return shape_of_spec(base.shape).with_vocabulary(int(_config(start).get("vocab_size", base.shape.vocab_size)))


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(folder / "config.json")
    return config


def _of_folder(folder: Path) -> ModelShape:
    return shape_of_config(_config(folder), str(folder))


def _of_base(base: "BaseSpec") -> ModelShape:
    """Of a base without base.shape: its config where it is at hand, else the shipped list."""
    if base.gguf:
        return _at_hand(base)
    assert base.model is not None
    return shape_of_model(str(hub_folder(base.model) or base.model))


def _at_hand(base: "BaseSpec") -> ModelShape:
    """Of the GGUF file, the folder, or the hub's cache alone. Raises BadInput where there is none."""
    if base.gguf:
        from pandallm.model.gguf import find_gguf

        return gguf_shape(find_gguf(base.gguf))
    assert base.model is not None
    return _of_folder(hub_folder(base.model) or Path(base.model).expanduser())


def _contradicted(stated: "ShapeSpec", shape: ModelShape) -> list[str]:
    """A sentence for every number of base.shape that the model's own config says otherwise."""
    return [
        f"warning: base.shape.{name} is {given}, the model's own config says {has}: the config counts; correct it or leave "
        "base.shape out."
        for name in sorted(stated.model_fields_set)
        if (given := getattr(stated, name)) is not None and given != (has := getattr(shape, name))
    ]


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
    """The shape that a GGUF file states. Raises BadInput where it cannot be read or numbers are missing."""
    from pandallm.model.gguf_header import read_header

    try:
        settings, tensors = read_header(file)
    except (OSError, ValueError) as e:
        raise BadInput(f"{file} is not a readable GGUF file ({e}); give base.shape.") from None
    family = settings.get("general.architecture")

    def number(name: str) -> int:
        value = settings.get(name)
        if not isinstance(value, int):  # some models have one for each layer
            raise BadInput(f"{file} lacks {name}; give base.shape with the model's sizes.")
        return value

    pieces = settings.get("tokenizer.ggml.tokens")
    if not isinstance(pieces, range):
        raise BadInput(f"{file} lacks tokenizer.ggml.tokens; give base.shape with the model's sizes.")
    heads = number(f"{family}.attention.head_count")
    width = number(f"{family}.embedding_length")
    head = f"{family}.attention.key_length"
    return ModelShape(
        hidden_size=width,
        layers=number(f"{family}.block_count"),
        heads=heads,
        kv_heads=number(f"{family}.attention.head_count_kv"),
        head_size=number(head) if head in settings else width // heads,
        intermediate_size=number(f"{family}.feed_forward_length"),
        vocab_size=len(pieces),
        max_position_embeddings=number(f"{family}.context_length"),
        tie_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        query_key_norm="blk.0.attn_q_norm.weight" in tensors,
    )

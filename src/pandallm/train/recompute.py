"""Gradient checkpointing: what backward keeps of a decoder layer, and what it computes again."""

import functools
from typing import Any, Literal

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts

#: Results that `selective` keeps: products and attention. The rest (norms, rotations, activations, casts) is cheap to compute again.
_KEPT = (
    ("aten", "mm"),
    ("aten", "addmm"),
    ("mkldnn", "_linear_pointwise"),
    ("aten", "_scaled_dot_product_flash_attention"),
    ("aten", "_scaled_dot_product_flash_attention_for_cpu"),
    ("aten", "_scaled_dot_product_efficient_attention"),
    ("aten", "_scaled_dot_product_cudnn_attention"),
    ("torch_attn", "_varlen_attn"),
)


def set_checkpointing(model: Any, kind: Literal["selective"] | bool) -> None:
    """Turn gradient checkpointing of `model`'s layers on. True: only each layer's input is kept; `selective`: see `_KEPT`.

    Gradients are those without it, up to rounding.
    """
    if not kind:
        return
    arguments: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        arguments["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _kept())
    # The name changed within transformers 5.
    new = hasattr(model, "activation_checkpointing_enable")
    enable = model.activation_checkpointing_enable if new else model.gradient_checkpointing_enable
    enable(arguments)


def _kept() -> list[Any]:
    found = []
    for space, name in _KEPT:
        packet = getattr(getattr(torch.ops, space), name, None)
        if packet is not None:
            found.append(packet.default)
    return found

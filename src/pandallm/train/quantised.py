"""Frozen weights in four bits, for adapters trained on them (QLoRA, Dettmers et al. 2023), through bitsandbytes."""

from typing import Any

import torch
from torch import nn

from pandallm.model.folder import quiet_peft


def bitsandbytes() -> Any:
    """The package, without what it says when it is imported."""
    with quiet_peft():
        import bitsandbytes as package
    return package


def quantise(model: Any, compute: torch.dtype) -> None:
    """Put the weights of all linear layers but the head into NF4 with double quantisation (section 3), in place.

    About 4.13 bits a weight (section 3: 4 + .127). Products are computed in `compute`. The layers stay `nn.Linear` by type.
    """
    package = bitsandbytes()
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or layer is head:
            continue
        device = layer.weight.device
        small = package.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=compute, quant_type="nf4", device="meta"
        )
        small.weight = package.nn.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=small
        )
        small.bias = layer.bias
        # In eval mode on such processors weights would be laid out anew for a kernel that has no gradient.
        small.support_avx512bf16_for_cpu = False
        _put(model, name, small.to(device).train(layer.training))
    model.is_loaded_in_4bit = True  # read by peft


def dequantise(model: Any) -> None:
    """Plain float32 layers again, with the adapters of each layer added: the weights that training computed with."""
    functional = bitsandbytes().functional
    kind = bitsandbytes().nn.Linear4bit
    for name, module in list(model.named_modules()):
        layer = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        if not isinstance(layer, kind) or (layer is module and name.endswith(".base_layer")):
            continue
        with torch.no_grad():
            weight = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
            for adapter in getattr(module, "active_adapters", ()):
                weight += module.get_delta_weight(adapter).to(weight.device)
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.bias = layer.bias
        _put(model, name, plain.train(module.training))
    model.is_loaded_in_4bit = False


def _put(model: Any, name: str, module: nn.Module) -> None:
    above, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(above), attribute, module)

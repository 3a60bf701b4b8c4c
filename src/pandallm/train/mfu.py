"""Model FLOPs utilisation: what the model's own products need of what the device can do (Chowdhery et al. 2022, PaLM, appendix B)."""

from typing import Any

from pandallm.errors import BadInput


def device_flops(name: str, memory_bytes: float, bfloat16: bool) -> float | None:
    """Dense peak in FLOP/s of a GPU as its driver names it, from the table in model/devices.yaml; None where it is not in there.

    `NVIDIA A100-SXM4-80GB` is A100-80G: the part before the dash stands in the name, and the memory is the nearest.
    """
    from pandallm.model.devices import devices

    words = "".join(c if c.isalnum() else " " for c in name.upper().replace("RTX ", "RTX")).split()
    found = [d for known, d in devices().items() if known.split("-")[0].upper() in words]
    if not found:
        return None
    nearest = min(found, key=lambda d: abs(d.memory_gb * 1e9 - memory_bytes))
    return 1e12 * (nearest.bf16_tflops if bfloat16 else nearest.fp32_tflops)


def peak_of(device: Any, bfloat16: bool) -> float | None:
    """`device_flops` of a torch device; None on a CPU, whose peak no table knows. Not run on a GPU yet."""
    if device.type != "cuda":
        return None
    import torch

    facts = torch.cuda.get_device_properties(device)
    return device_flops(facts.name, facts.total_memory, bfloat16)


def flops_per_token(config: Any, packs: Any) -> float | None:
    """FLOPs of one token's forward and backward on these packs (`GroupedPacks`), computed once: what checkpointing computes
    again does not count. None for a model family whose sizes are not known."""
    from pandallm.model.shape import shape_of_config

    try:
        shape = shape_of_config(config.to_dict())
    except BadInput:
        return None
    total = packs.facts.get("ledger", {}).get("total", {})
    share = total["trained_exposures"] / total["exposures"] if total.get("exposures") else 1.0
    return shape.training_flops_per_token(packs.mean_context, share)

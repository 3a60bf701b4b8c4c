"""Linear layers through oneDNN: on processors with AVX-512 torch's default float32 product may use half of their width.

Measured on an AMD EPYC with AVX-512 (two cores, torch 2.13): 220 GFLOP/s by torch's default (MKL), 520 through oneDNN
with weights reordered once. Both compute in float32; they differ in the order of sums, as two batch sizes do.
"""

import torch
from torch import Tensor, nn

#: Below this many weights a layer's product costs less than the call around it, and results stay those of plain torch.
MIN_WEIGHTS = 10_000_000


class OneDnnLinear(nn.Module):
    """A frozen linear layer, (..., I) -> (..., O), whose weight lies in oneDNN's own order. For inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        # Not a buffer: an opaque tensor can be neither saved nor moved.
        self._packed = packed
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


def onednn_helps(model: nn.Module) -> bool:
    """A fixed rule, not a timing, so that two runs on one machine compute the same bits."""
    parameter = next(model.parameters())
    return (
        parameter.device.type == "cpu"
        and parameter.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10"))
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and sum(m.weight.numel() for m in _linears(model).values()) >= MIN_WEIGHTS
    )


def use_onednn(model: nn.Module) -> int:
    """Replace the model's linear layers in place, its output embeddings apart; returns how many.

    The weights are not held twice, so the model can no longer be saved or trained. Where it would not help (another
    processor, another dtype, a small model) nothing changes.
    """
    if not onednn_helps(model):
        return 0
    linears = _linears(model)
    for name, linear in linears.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, OneDnnLinear(linear))
    return len(linears)


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    # The head may share its weight with the embedding, and few of its positions are computed.
    output = getattr(model, "get_output_embeddings", None)
    head = output() if callable(output) else None
    # Exactly Linear: subclasses (adapters, quantised layers) compute something else.
    return {n: m for n, m in model.named_modules() if type(m) is nn.Linear and m is not head}

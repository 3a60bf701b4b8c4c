"""Linear layers through oneDNN: on processors with AVX-512 torch's default float32 product may use half of their width.

Measured on an AMD EPYC with AVX-512 (two cores, torch 2.13): 220 GFLOP/s by torch's default (MKL), 520 through oneDNN
with weights reordered once, 360 to 500 with weights as they lie, forward and backward. Both compute in float32; they
differ in the order of sums, as two batch sizes do.
"""

from typing import Any

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


def product(a_NI: Tensor, b_OI: Tensor) -> Tensor:
    """a @ b^T in float32: (..., I), (O, I) -> (..., O). Either may be a transposed view."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(a_NI, b_OI, None, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    """(..., I) -> (..., O), all three products through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight_OI)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_NO = grad.reshape(-1, grad.shape[-1])
        grad_x = product(grad_NO, weight_OI.t()).view(*grad.shape[:-1], -1) if needs_x else None
        grad_weight = product(grad_NO.t(), x.reshape(-1, x.shape[-1]).t()) if needs_weight else None
        return grad_x, grad_weight, grad_NO.sum(0) if needs_bias else None


class OneDnnLayers:
    """The linear layers of a float32 model in training, its output embeddings apart, between `install` and `remove`.

    Outside a step the model is a plain one. Sharded and quantised weights are left alone.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._changed: list[nn.Module] = []

    def install(self) -> None:
        """Put the forwards in place. Adapters may have changed modules since the last time."""
        for module in _linears(self.model).values():
            weight = module.weight
            if type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu":
                self._set(module, lambda x, m=module: _Linear.apply(x, m.weight, m.bias))

    def _set(self, module: Any, forward: Any) -> None:
        module.forward = forward
        self._changed.append(module)

    def remove(self) -> None:
        for module in self._changed:
            module.__dict__.pop("forward", None)
        self._changed.clear()


def onednn_here() -> bool:
    """Whether this processor and this torch have float32 products that oneDNN runs faster."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10"))
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def onednn_helps(model: nn.Module) -> bool:
    """A fixed rule, not a timing, so that two runs on one machine compute the same bits."""
    parameter = next(model.parameters())
    return (
        parameter.device.type == "cpu"
        and parameter.dtype == torch.float32
        and onednn_here()
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

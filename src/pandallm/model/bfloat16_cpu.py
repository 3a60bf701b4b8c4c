"""Training in bfloat16 on a CPU: the layers of a decoder with fewer casts than autocast makes.

Shapes: N tokens, I and O widths of a linear layer, D width or head size, E examples, H heads, K key heads, L tokens of an
example, B queries of a block.

Under autocast float32 activations are cast again for every product that reads them. Here each weight is cast once per
optimizer step, norms hand on bfloat16, and the residual stream, the weights, their gradients and the norms' own arithmetic
stay in float32. The modules are changed only between `install` and `remove`: outside a step the model is a plain one.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: Norms that compute weight * x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019), as Llama's does.
PLAIN_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}


class _Linear(torch.autograd.Function):
    """(..., I) -> (..., O) in bfloat16; the weight's gradient is handed on in the weight's own dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, copy_OI: Tensor) -> Tensor:
        x = x.to(copy_OI.dtype)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, copy_OI)
        bias = None if bias_O is None else bias_O.to(copy_OI.dtype)
        return torch.nn.functional.linear(x, copy_OI, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, copy_OI = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_NO = grad.reshape(-1, grad.shape[-1])
        grad_x = (grad_NO @ copy_OI).view(*grad.shape[:-1], -1) if needs_x else None
        grad_weight = (grad_NO.t() @ x.reshape(-1, x.shape[-1])).float() if needs_weight else None
        return grad_x, grad_weight, grad_NO.float().sum(0) if needs_bias else None, None


class _Norm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension: float32 inside, bfloat16 out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        inverse = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, inverse)
        return (x32 * inverse).mul_(weight_D).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_D, inverse = ctx.saved_tensors
        unit = x.float() * inverse
        grad32 = grad.float()
        grad_weight = (grad32 * unit).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        scaled = grad32 * weight_D
        mean = torch.linalg.vecdot(scaled, unit).div_(x.shape[-1]).unsqueeze(-1)
        return scaled.addcmul_(unit, mean, value=-1).mul_(inverse).to(x.dtype), grad_weight, None


#: Queries attended at once: their scores against all keys before them stay in the caches.
QUERY_BLOCK = 256


class BlockAttention(torch.autograd.Function):
    """Causal attention of examples laid flat, as plain batched products: (N, H, D), twice (N, K, D) -> (N, H, D).

    `edges_E1`: where examples begin, and N. Each example is attended alone, a block of queries against the keys up to its
    end, so nothing is padded. The weights are computed again in backward: only the inputs are kept. The softmax is
    computed in float32 and rounded once.
    """

    @staticmethod
    def forward(ctx: Any, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, edges_E1: list[int], scale: float) -> Tensor:
        ctx.save_for_backward(q_NHD, k_NKD, v_NKD)
        ctx.edges_E1, ctx.scale = edges_E1, scale
        out_NHD = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
        keys = k_NKD.shape[1]
        for start, end, k_KLD, v_KLD in _examples(edges_E1, k_NKD, v_NKD):
            for a, b in _blocks(start, end):
                seen = b - start
                weights = _weights(_below(q_NHD[a:b], keys), k_KLD[:, :seen], b - a, scale)
                _above(torch.bmm(weights, v_KLD[:, :seen]), out_NHD[a:b])
        return out_NHD

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_NHD, k_NKD, v_NKD = ctx.saved_tensors
        keys = k_NKD.shape[1]
        grad_q = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
        grad_k, grad_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k_NKD, v_NKD))
        for start, end, k_KLD, v_KLD in _examples(ctx.edges_E1, k_NKD, v_NKD):
            sum_k, sum_v = (torch.zeros(x.shape, dtype=torch.float32) for x in (k_KLD, v_KLD))
            for a, b in _blocks(start, end):
                seen = b - start
                k, v = k_KLD[:, :seen], v_KLD[:, :seen]
                q, grad = _below(q_NHD[a:b], keys), _below(grad_NHD[a:b], keys)
                weights = _weights(q, k, b - a, ctx.scale)
                sum_v[:, :seen] += torch.bmm(weights.transpose(1, 2), grad)
                grad_weights = torch.bmm(grad, v.transpose(1, 2))
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scale)
                _above(torch.bmm(scores, k), grad_q[a:b])
                sum_k[:, :seen] += torch.bmm(scores.transpose(1, 2), q)
            grad_k[start:end] = sum_k.transpose(0, 1)
            grad_v[start:end] = sum_v.transpose(0, 1)
        return grad_q, grad_k, grad_v, None, None


def _examples(edges_E1: list[int], k_NKD: Tensor, v_NKD: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    for start, end in itertools.pairwise(edges_E1):
        yield start, end, k_NKD[start:end].transpose(0, 1).contiguous(), v_NKD[start:end].transpose(0, 1).contiguous()


def _blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + QUERY_BLOCK, end)) for a in range(start, end, QUERY_BLOCK))


def _below(x_BHD: Tensor, keys: int) -> Tensor:
    """(B, H, D) -> (K, H / K * B, D): query heads that share a key head stand below each other."""
    block, heads, size = x_BHD.shape
    return x_BHD.reshape(block, keys, heads // keys, size).permute(1, 2, 0, 3).reshape(keys, -1, size)


def _above(x: Tensor, out_BHD: Tensor) -> None:
    """The inverse of `_below`, written into `out_BHD`."""
    block, heads, size = out_BHD.shape
    keys = x.shape[0]
    out_BHD.view(block, keys, heads // keys, size).copy_(x.view(keys, heads // keys, block, size).permute(2, 0, 1, 3))


def _weights(q: Tensor, k: Tensor, block: int, scale: float) -> Tensor:
    """Softmax of the scores of a block of queries, the last `block` of the positions that `k` holds."""
    seen = k.shape[1]
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    future = torch.full((block, seen), -torch.inf, dtype=scores.dtype).triu_(seen - block + 1)
    scores.view(-1, block, seen).add_(future)
    return torch.softmax(scores, -1)


class Bfloat16Layers:
    """The linear layers and norms of a float32 model on a CPU, computed in bfloat16 between `install` and `remove`.

    `head_copy_VD`: the output embeddings in bfloat16 as of the last `install`, None where they are no plain weight.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.head_copy_VD: Tensor | None = None
        self._changed: list[Any] = []
        self._copies: dict[int, tuple[Tensor, int, Tensor]] = {}

    def install(self) -> None:
        """Cast the weights, and put the forwards in place. Adapters and sharding may have changed modules since."""
        head = self.model.get_output_embeddings()
        self.head_copy_VD = self._copy(head.weight) if _plain(head.weight) else None
        for module in self.model.modules():
            kind = type(module)
            # Exactly Linear: subclasses (adapters, quantised layers) compute something else. Sharded weights are not plain.
            if kind is nn.Linear and module is not head and _plain(module.weight):
                copy = self._copy(module.weight)
                self._set(module, lambda x, m=module, c=copy: _Linear.apply(x, m.weight, m.bias, c))
            elif kind.__name__ in PLAIN_NORMS:
                self._set(module, lambda x, m=module: _Norm.apply(x, m.weight, m.variance_epsilon))
            elif kind.__name__.endswith("RotaryEmbedding"):
                self._set(module, lambda *a, m=module, **k: _to_bfloat16(type(m).forward(m, *a, **k)))

    def remove(self) -> None:
        for module in self._changed:
            module.__dict__.pop("forward", None)
        self._changed.clear()

    def _set(self, module: Any, forward: Any) -> None:
        module.forward = forward
        self._changed.append(module)

    def _copy(self, weight: Tensor) -> Tensor:
        known, version, copy = self._copies.get(id(weight), (None, -1, None))
        if known is not weight or copy is None:
            copy = torch.empty_like(weight, dtype=torch.bfloat16, requires_grad=False)
        # Not every optimizer counts up the version of what it changes, so trained weights are cast each time.
        if known is not weight or weight.requires_grad or version != weight._version:
            copy.copy_(weight.detach())
            self._copies[id(weight)] = (weight, weight._version, copy)
        return copy


def _to_bfloat16(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(torch.bfloat16) for x in tensors)


def _plain(weight: Tensor) -> bool:
    return type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"

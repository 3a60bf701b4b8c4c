"""Cross entropy at trained positions only, in chunks, with the gradient made on the way.

Shapes: N tokens, M trained tokens, D width, V vocabulary, S sources. The logits of a whole micro-batch never exist: a chunk's are
made, turned into their own gradient (softmax minus one-hot) and folded into those of the hidden states and the head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Logits held at once, in numbers: float32 on a CPU 64 MiB, bfloat16 there 128 MiB, on a GPU 1 GiB.
CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**28}
CHUNK_BFLOAT16_CPU = 2**26
#: Bfloat16 logits pass through float32 for the softmax, on a CPU so many at once: these stay in its caches.
SOFTMAX_LOGITS_CPU = 2**19


#: (A, I), (B, I) -> (A, B), a @ b^T; either may be a transposed view.
Product = Callable[[Tensor, Tensor], Tensor]


def plain_product(a_AI: Tensor, b_BI: Tensor) -> Tensor:
    """a @ b^T by torch's default."""
    return a_AI @ b_BI.t()


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        predictors_M: Tensor,
        weight_VD: Tensor,
        targets_M: Tensor,
        copy_VD: Tensor | None,
        product: Product,
    ) -> tuple[Tensor, Tensor]:
        hidden_MD = hidden_ND.index_select(0, predictors_M)
        with_gradient = any(ctx.needs_input_grad)
        limit = CHUNK_LOGITS.get(hidden_MD.device.type, 2**24) if copy_VD is None else CHUNK_BFLOAT16_CPU
        chunk = max(16, limit // weight_VD.shape[0])
        losses_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MD.device)
        hidden_grad_MD = torch.empty_like(hidden_MD) if with_gradient else None
        weight_grad_VD: Tensor | None = None
        factor_VD = weight_VD if copy_VD is None else copy_VD
        for at in range(0, len(targets_M), chunk):
            part = slice(at, at + chunk)
            hidden, targets = hidden_MD[part], targets_M[part, None]
            if copy_VD is not None:
                hidden = hidden.to(copy_VD.dtype)
            logits = product(hidden, factor_VD)
            if copy_VD is None:
                logits = logits.float()
                losses_M[part] = _to_gradient(logits, targets, with_gradient)
            else:
                rows = max(1, SOFTMAX_LOGITS_CPU // weight_VD.shape[0])
                for row in range(0, len(logits), rows):
                    few = logits[row : row + rows].float()
                    losses_M[at + row : at + row + len(few)] = _to_gradient(
                        few, targets[row : row + rows], with_gradient
                    )
                    logits[row : row + rows] = few
            if hidden_grad_MD is None:
                continue
            hidden_grad_MD[part] = product(logits, factor_VD.t())
            if not ctx.needs_input_grad[2]:
                continue
            part_VD = product(logits.t(), hidden.t())
            # float32 even under autocast: sums of many chunks.
            weight_grad_VD = part_VD.to(weight_VD.dtype) if weight_grad_VD is None else weight_grad_VD.add_(part_VD)
        ctx.save_for_backward(hidden_grad_MD, weight_grad_VD, predictors_M)
        ctx.tokens = hidden_ND.shape[0]
        ctx.mark_non_differentiable(losses_M)
        return losses_M.sum(), losses_M

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad_MD, weight_grad_VD, predictors_M = ctx.saved_tensors
        hidden_grad_ND = hidden_grad_MD.new_zeros((ctx.tokens, hidden_grad_MD.shape[1]))
        hidden_grad_ND[predictors_M] = hidden_grad_MD.mul_(grad_sum)  # each token predicts one: no sums
        return hidden_grad_ND, None, None if weight_grad_VD is None else weight_grad_VD.mul_(grad_sum), None, None, None


def _to_gradient(logits: Tensor, targets: Tensor, with_gradient: bool) -> Tensor:
    """Losses of rows of float32 logits; the logits become softmax minus one-hot, in place, where that is wanted."""
    log_sum = logits.logsumexp(-1, keepdim=True)
    losses = (log_sum - logits.gather(1, targets))[:, 0]
    if with_gradient:
        logits.sub_(log_sum).exp_()
        logits.scatter_(1, targets, logits.gather(1, targets) - 1)
    return losses


def head_cross_entropy(
    hidden_ND: Tensor,
    predictors_M: Tensor,
    weight_VD: Tensor,
    targets_M: Tensor,
    copy_VD: Tensor | None = None,
    product: Product = plain_product,
) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(hidden[predictors] @ weight^T)[target] in nats, and each token's loss (detached, M).

    `predictors_M` are different positions in `hidden_ND`. The softmax is in float32 whatever autocast says. Backward may
    run only once: it scales the kept gradients in place. `copy_VD`: the weight in bfloat16, for products on a CPU in it.
    `product` computes a @ b^T.
    """
    result: tuple[Tensor, Tensor] = _HeadCrossEntropy.apply(
        hidden_ND, predictors_M, weight_VD, targets_M, copy_VD, product
    )
    return result


def add_by_source(sums_S: Tensor, losses_M: Tensor, source_ids_M: Tensor) -> None:
    """Add each token's loss to its source's sum (float64, on the device: no synchronisation)."""
    sums_S.index_add_(0, source_ids_M, losses_M.to(sums_S.dtype))

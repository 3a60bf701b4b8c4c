"""Cross entropy at trained positions only, in chunks, with the gradient made on the way.

Shapes: N tokens, M trained tokens, D width, V vocabulary, S sources. The logits of a whole micro-batch never exist: a chunk's are
made, turned into their own gradient (softmax minus one-hot) and folded into those of the hidden states and the head.
"""

from typing import Any

import torch
from torch import Tensor

#: Float32 logits held at once, in numbers (64 MiB on CPU, 1 GiB on a GPU).
CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**28}


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, predictors_M: Tensor, weight_VD: Tensor, targets_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden_MD = hidden_ND.index_select(0, predictors_M)
        with_gradient = any(ctx.needs_input_grad)
        chunk = max(16, CHUNK_LOGITS.get(hidden_MD.device.type, 2**24) // weight_VD.shape[0])
        losses_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MD.device)
        hidden_grad_MD = torch.empty_like(hidden_MD) if with_gradient else None
        weight_grad_VD: Tensor | None = None
        for at in range(0, len(targets_M), chunk):
            part = slice(at, at + chunk)
            hidden, targets = hidden_MD[part], targets_M[part, None]
            logits = (hidden @ weight_VD.t()).float()
            log_sum = logits.logsumexp(-1, keepdim=True)
            losses_M[part] = (log_sum - logits.gather(1, targets))[:, 0]
            if hidden_grad_MD is None:
                continue
            grad = logits.sub_(log_sum).exp_()  # softmax, in place of the logits
            grad.scatter_(1, targets, grad.gather(1, targets) - 1)
            hidden_grad_MD[part] = grad @ weight_VD
            part_VD = grad.t() @ hidden
            # float32 even under autocast: sums of many chunks.
            weight_grad_VD = part_VD.to(weight_VD.dtype) if weight_grad_VD is None else weight_grad_VD.add_(part_VD)
        ctx.save_for_backward(hidden_grad_MD, weight_grad_VD, predictors_M)
        ctx.tokens = hidden_ND.shape[0]
        ctx.mark_non_differentiable(losses_M)
        return losses_M.sum(), losses_M

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, _: Tensor) -> tuple[Tensor, None, Tensor, None]:
        hidden_grad_MD, weight_grad_VD, predictors_M = ctx.saved_tensors
        hidden_grad_ND = hidden_grad_MD.new_zeros((ctx.tokens, hidden_grad_MD.shape[1]))
        hidden_grad_ND[predictors_M] = hidden_grad_MD.mul_(grad_sum)  # each token predicts one: no sums
        return hidden_grad_ND, None, weight_grad_VD.mul_(grad_sum), None


def head_cross_entropy(
    hidden_ND: Tensor, predictors_M: Tensor, weight_VD: Tensor, targets_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(hidden[predictors] @ weight^T)[target] in nats, and each token's loss (detached, M).

    `predictors_M` are different positions in `hidden_ND`. The softmax is in float32 whatever autocast says. Backward may
    run only once: it scales the kept gradients in place.
    """
    result: tuple[Tensor, Tensor] = _HeadCrossEntropy.apply(hidden_ND, predictors_M, weight_VD, targets_M)
    return result


def add_by_source(sums_S: Tensor, losses_M: Tensor, source_ids_M: Tensor) -> None:
    """Add each token's loss to its source's sum (float64, on the device: no synchronisation)."""
    sums_S.index_add_(0, source_ids_M, losses_M.to(sums_S.dtype))

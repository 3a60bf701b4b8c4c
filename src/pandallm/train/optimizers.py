"""Optimizers by name; `register` adds one."""

from collections.abc import Callable, Collection
from typing import Any

from pandallm.errors import BadInput
from pandallm.spec import nearest
from pandallm.train.spec import OptimizerSpec

#: (parameter groups, settings) -> torch optimizer. Groups hold "params" and "weight_decay".
Make = Callable[[list[dict[str, Any]], OptimizerSpec], Any]
_MAKERS: dict[str, Make] = {}


def register(name: str, make: Make) -> None:
    """Make `optimizer.kind: NAME` mean this."""
    _MAKERS[name] = make


def make_optimizer(model: Any, spec: OptimizerSpec, no_decay: Collection[str] = ()) -> Any:
    """The optimizer of the model's trainable parameters; weight decay on matrices only, as usual for norms and biases.

    `no_decay`: names of matrices without it (those of which some rows must not move).

    Raises BadInput for an unknown kind.
    """
    if spec.kind not in _MAKERS:
        raise BadInput(f"optimizer.kind: '{spec.kind}' is not known.{nearest(spec.kind, sorted(_MAKERS))}")
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if p.ndim > 1 and n not in no_decay], "weight_decay": spec.weight_decay},
        {"params": [p for n, p in named if p.ndim <= 1 or n in no_decay], "weight_decay": 0.0},
    ]
    return _MAKERS[spec.kind]([g for g in groups if g["params"]], spec)


def _adamw(groups: list[dict[str, Any]], spec: OptimizerSpec) -> Any:
    """AdamW (Loshchilov & Hutter 2019), fused."""
    import torch

    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)


register("adamw", _adamw)

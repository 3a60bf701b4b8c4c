"""Optimizers by name; `register` adds one."""

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import Any

from pandallm.errors import BadInput
from pandallm.spec import nearest
from pandallm.train.spec import OptimizerSpec

#: (parameter groups, settings) -> torch optimizer. Groups hold "params", "weight_decay" and "hidden": whether they are
#: matrices inside the model, neither embedding nor head.
Make = Callable[[list[dict[str, Any]], OptimizerSpec], Any]
_MAKERS: dict[str, Make] = {}


def register(name: str, make: Make) -> None:
    """Make `optimizer.kind: NAME` mean this."""
    _MAKERS[name] = make


def check_optimizer(spec: OptimizerSpec) -> None:
    """Raise BadInput for an unknown kind, and where its package is not installed."""
    if spec.kind not in _MAKERS:
        raise BadInput(f"optimizer.kind: '{spec.kind}' is not known.{nearest(spec.kind, sorted(_MAKERS))}")
    if spec.kind == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise BadInput('optimizer.kind: adamw8bit needs the package bitsandbytes: `pip install "pandallm[qlora]"`.')


def make_optimizer(model: Any, spec: OptimizerSpec, no_decay: Collection[str] = ()) -> Any:
    """The optimizer of the model's trainable parameters; weight decay on matrices only, as usual for norms and biases.

    `no_decay`: names of matrices without it (those of which some rows must not move).

    Raises BadInput as `check_optimizer` does.
    """
    check_optimizer(spec)
    outer = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": spec.weight_decay, "hidden": True},
        {"params": [], "weight_decay": spec.weight_decay, "hidden": False},
        {"params": [], "weight_decay": 0.0, "hidden": False},
    ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or name in no_decay
            groups[2 if vector else int(id(parameter) in outer)]["params"].append(parameter)
    return _MAKERS[spec.kind]([g for g in groups if g["params"]], spec)


def _adamw(groups: list[dict[str, Any]], spec: OptimizerSpec) -> Any:
    """AdamW (Loshchilov & Hutter 2019), fused."""
    import torch

    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=True)


def _adamw8bit(groups: list[dict[str, Any]], spec: OptimizerSpec) -> Any:
    """AdamW with both moments in 8 bits by blocks of 256 (Dettmers et al. 2022); tensors below 4,096 numbers in 32 bits."""
    from pandallm.train.quantised import bitsandbytes

    return bitsandbytes().optim.AdamW8bit(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps)


def _muon(groups: list[dict[str, Any]], spec: OptimizerSpec) -> Any:
    """Muon (Jordan et al. 2024) on hidden matrices, AdamW on all else.

    Its updates are scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable", section 2.2), so that one learning
    rate and one weight decay serve both.
    """
    import torch

    hidden = [g for g in groups if g["hidden"]]
    rest = [g for g in groups if not g["hidden"]]
    parts = [torch.optim.Muon(hidden, lr=spec.lr, momentum=0.95, adjust_lr_fn="match_rms_adamw")] if hidden else []
    return Together([*parts, *([_adamw(rest, spec)] if rest else [])])


class Together:
    """Several torch optimizers as one: their groups, and one `state` of all their parameters."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.state = parts[0].state
        for part in parts[1:]:
            part.state = self.state  # checkpoints read and write one mapping

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)


register("adamw", _adamw)
register("adamw8bit", _adamw8bit)
register("muon", _muon)

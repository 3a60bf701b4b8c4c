"""Liger's fused kernels for norms and the gated MLP (optional package liger-kernel; needs a GPU, not run on one yet)."""

import inspect
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pandallm.errors import BadInput


def liger_installed() -> bool:
    return find_spec("liger_kernel") is not None


def use_liger(model: Any) -> None:
    """Exchange the forwards of the model's modules, for good. The loss stays ours, which reads trained positions only.

    Raises BadInput where the package is missing or does not know the model's family.
    """
    if not liger_installed():
        raise BadInput("variant: liger needs the package liger-kernel: `pip install liger-kernel`.")
    family = model.config.model_type
    apply = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN.get(family)
    if apply is None:
        raise BadInput(f"variant: liger has no kernels for models of type {family}; use plain or compiled.")
    accepted = inspect.signature(apply).parameters
    # Rotary positions would be exchanged for every model of the process.
    off = {k: False for k in ("rope", "cross_entropy", "fused_linear_cross_entropy") if k in accepted}
    module = sys.modules[type(model.base_model).__module__]
    before = dict(vars(module))
    apply(model=model, **off)
    for name, value in before.items():  # classes too: models loaded later stay plain
        setattr(module, name, value)

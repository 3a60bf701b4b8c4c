"""Decoder layers through torch.compile, one after the other, between `install` and `remove`.

Layers share their code, so one is compiled and all run it. Shapes are static: `train.batch.padded_batch` brings every
micro-batch to one of a few lengths. Correct on a CPU (with a dense mask, so not faster there); not run on a GPU yet.
"""

from typing import Any

import torch


class CompiledLayers:
    """Outside a step the model is a plain one: it is probed, saved and scored uncompiled."""

    def __init__(self, model: Any, backend: str = "inductor") -> None:
        self.model, self.backend = model, backend
        self._compiled: dict[int, tuple[Any, Any]] = {}

    def install(self) -> None:
        """Put the compiled calls in place. Adapters may have changed modules since the last time."""
        for layer in self.model.base_model.layers:
            known, call = self._compiled.get(id(layer), (None, None))
            if known is not layer:
                call = torch.compile(layer._call_impl, dynamic=False, backend=self.backend)
                self._compiled[id(layer)] = (layer, call)
            layer._compiled_call_impl = call

    def remove(self) -> None:
        for layer, _ in self._compiled.values():
            layer._compiled_call_impl = None


def compilations() -> int:
    """Graphs compiled in this process so far: training in its steady state adds none."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])

"""Forward of one micro-batch: the sum of its trained tokens' cross entropy, computed as the stage's variant says."""

from typing import Any

import torch
from torch import Tensor

from pandallm.model.bfloat16_cpu import Bfloat16Layers
from pandallm.model.packed import packed_hidden
from pandallm.train.batch import MicroBatch
from pandallm.train.loss import head_cross_entropy
from pandallm.train.world import is_sharded


class Forward:
    """Shapes: M trained tokens. `begin_step` is called before the first micro-batch of a step, `end_step` after its last backward."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.device = next(model.parameters()).device
        # A fixed rule, so that a resumed run computes as it began.
        plain = not any(is_sharded(p) for p in model.parameters())
        self.layers = Bfloat16Layers(model) if plain and self.device.type == "cpu" and dtype == torch.bfloat16 else None

    def begin_step(self) -> None:
        if self.layers is not None:
            self.layers.install()

    def end_step(self) -> None:
        if self.layers is not None:
            self.layers.remove()

    def __call__(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Sum of the losses (nats; has a gradient), and each trained token's loss (M, detached)."""
        head = self.model.get_output_embeddings().weight
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden_ND = packed_hidden(self.model, batch.input_ids_1N, batch.layout)[0]
            copy_VD = None if self.layers is None else self.layers.head_copy_VD
            return head_cross_entropy(hidden_ND, batch.predictors_M, head, batch.targets_M, copy_VD)

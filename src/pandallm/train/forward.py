"""Forward of one micro-batch: the sum of its trained tokens' cross entropy, computed as the stage's variant says."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pandallm.model.bfloat16_cpu import Bfloat16Layers
from pandallm.model.onednn import OneDnnLayers, product
from pandallm.model.packed import packed_hidden
from pandallm.train.batch import MicroBatch, padded_batch
from pandallm.train.compiled import CompiledLayers
from pandallm.train.loss import head_cross_entropy, plain_product


class Forward:
    """Shapes: M trained tokens. `begin_step` is called before the first micro-batch of a step, `end_step` after its last backward.

    `variant` is what `train.variants` resolved; left out, the rule for small models. `sequence_length` and
    `micro_batch_tokens` bound the shapes that compiled layers see.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        variant: Mapping[str, Any] | None = None,
        *,
        sequence_length: int = 2048,
        micro_batch_tokens: int = 4096,
    ) -> None:
        self.model, self.dtype = model, dtype
        self.device = next(model.parameters()).device
        if variant is None:
            variant = {"layers": "bfloat16" if self.device.type == "cpu" and dtype == torch.bfloat16 else "plain"}
        self.variant = dict(variant)
        kind = self.variant["layers"]
        self.sequence_length = sequence_length
        # Few different lengths, each of them compiled once.
        self.multiple = max(sequence_length, -(-micro_batch_tokens // 4))
        self.slots = 64
        self.product = product if kind == "onednn" else plain_product
        #: How attention is computed, as `PackedLayout` says.
        self.attention = {"by_example": kind == "onednn"}
        self.bfloat16 = Bfloat16Layers(model) if kind == "bfloat16" else None
        self.layers: list[Any] = []
        if self.bfloat16:
            self.layers.append(self.bfloat16)
        if kind == "onednn":
            self.layers.append(OneDnnLayers(model))
        if kind == "liger":
            from pandallm.train.liger import use_liger

            use_liger(model)
        self.compiled = CompiledLayers(model) if self.variant.get("compiled") else None
        if self.compiled:
            self.layers.append(self.compiled)

    def begin_step(self) -> None:
        for layers in self.layers:
            layers.install()

    def end_step(self) -> None:
        for layers in self.layers:
            layers.remove()

    def __call__(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Sum of the losses (nats; has a gradient), and each trained token's loss (M, detached)."""
        if self.compiled:
            batch = self._padded(batch)
        layout = replace(batch.layout, **self.attention)
        head = self.model.get_output_embeddings().weight
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden_ND = packed_hidden(self.model, batch.input_ids_1N, layout)[0]
            copy_VD = self.bfloat16.head_copy_VD if self.bfloat16 else None
            return head_cross_entropy(hidden_ND, batch.predictors_M, head, batch.targets_M, copy_VD, self.product)

    def _padded(self, batch: MicroBatch) -> MicroBatch:
        longest = max(self.sequence_length, batch.layout.longest)
        padded = padded_batch(batch, self.multiple, longest, self.slots)
        while padded is None:  # grows a few times at most, then every batch has the same shape
            self.slots *= 2
            padded = padded_batch(batch, self.multiple, longest, self.slots)
        return padded

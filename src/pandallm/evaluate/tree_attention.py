"""Attention over trees of tokens: each token sees its ancestors and itself, nothing else.

Shapes: N tokens of all trees of a batch, one after the other without padding; T tokens of one tree, of which the first
S are its trunk (a chain: each token the child of the one before) and T - S its tail; H heads, D head size.

The trunk, which is most of a tree, takes the causal kernel; only the tail pays for a mask. A batch of trees needs no
padding, because everything outside of attention treats tokens one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: Name under which transformers knows this attention.
TREE_ATTENTION = "pandallm_tree"


@dataclass(frozen=True)
class Tree:
    """One tree in a flat row: tokens `start` to `start` + `size`; the first `trunk` are a chain.

    `visible_11QT`: boolean, which tokens (T) each token of the tail (Q = T - S) sees; None without a tail.
    """

    start: int
    size: int
    trunk: int
    visible_11QT: Tensor | None


def tree_layout(parents: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tree, ...]:
    """Where trees lie, one after the other. `parents` per tree: index of each token's parent (< its own), -1 at a root."""
    trees, start = [], 0
    for of in parents:
        size, trunk = len(of), 0
        while trunk < size and of[trunk] == trunk - 1:
            trunk += 1
        visible = np.zeros((size - trunk, size), dtype=bool)
        for i in range(trunk, size):
            parent = of[i]
            if parent >= trunk:
                visible[i - trunk, : parent + 1] = visible[parent - trunk, : parent + 1]
            else:
                visible[i - trunk, : parent + 1] = True
            visible[i - trunk, i] = True
        mask = torch.from_numpy(visible)[None, None].to(device) if trunk < size else None
        trees.append(Tree(start, size, trunk, mask))
        start += size
    return tuple(trees)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trees: tuple[Tree, ...] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers. Query (1, H, N, D), keys and values (1, H_kv, N, D) -> (1, N, H, D).

    Without `trees` (generation, bits per byte) this is transformers' own `sdpa`. Raises NotImplementedError for soft
    capping and attention sinks, which the kernels used here do not know.
    """
    if trees is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise NotImplementedError("tree attention knows neither soft capping nor attention sinks")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = key.shape[1] != query.shape[1]
    parts = []
    for tree in trees:
        a, b, c = tree.start, tree.start + tree.trunk, tree.start + tree.size
        parts.append(
            scaled_dot_product_attention(
                query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, enable_gqa=grouped, scale=scale
            )
        )
        if tree.visible_11QT is not None:
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, b:c],
                    key[:, :, a:c],
                    value[:, :, a:c],
                    attn_mask=tree.visible_11QT,
                    enable_gqa=grouped,
                    scale=scale,
                )
            )
    return torch.cat(parts, 2).transpose(1, 2), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)
# Only ordinary batches reach this: trees come with a finished mask (see `tree_hidden`).
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)


def tree_hidden(model: Any, tokens_N: Sequence[int], depths_N: Sequence[int], trees: tuple[Tree, ...]) -> Tensor:
    """Last hidden states (N, width) of trees laid flat. `model` must have TREE_ATTENTION set."""
    device = next(model.parameters()).device
    # A 4D mask is passed through untouched: without it transformers would build a dense N x N mask.
    passed_through = torch.empty((1, 1, 1, 1), device=device)
    hidden: Tensor = model.base_model(
        input_ids=torch.tensor([list(tokens_N)], device=device),
        position_ids=torch.tensor([list(depths_N)], device=device),
        attention_mask=passed_through,
        use_cache=False,
        trees=trees,
    ).last_hidden_state
    return hidden[0]

"""Packed attention: several examples in one flat row of tokens, none of which sees another.

Shapes: N tokens of all examples in a row, E examples, L length of the longest in a group, H heads, D head size.

The examples of a micro-batch are laid one after the other in one row of N tokens, without padding. Attention copies
them to groups of (E, H, L, D), right-padded and causal: a real query never sees the pads behind it, so no mask is needed and
each group takes the fast causal kernel. On a CPU in bfloat16 each example is attended alone by plain products
(`bfloat16_cpu.BlockAttention`), which pads nothing. On CUDA with bfloat16 or float16 the same layout goes to
`torch.nn.attention.varlen`, which needs no copy (that branch has not been run on a GPU yet).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pandallm.errors import PandaError
from pandallm.model.bfloat16_cpu import BlockAttention

#: Name under which transformers knows this attention.
PACKED_ATTENTION = "pandallm_packed"


@dataclass(frozen=True)
class Group:
    """Examples attended together. `tokens_G`: their flat positions. `slots_G`: where each goes in the E x L pad.
    `padded_EL`: the flat position each slot is read from (pads read any token: nothing reads their result)."""

    examples: int
    longest: int
    tokens_G: Tensor
    slots_G: Tensor
    padded_EL: Tensor


@dataclass(frozen=True)
class PackedLayout:
    """Where examples lie in a flat row. `starts_E1`: int32 cumulative lengths. `position_ids_1N` restart at 0.

    `by_example`: on a CPU each example is attended alone by plain products, also in float32.
    """

    starts_E1: Tensor
    longest: int
    position_ids_1N: Tensor
    groups: tuple[Group, ...]
    by_example: bool = False


#: A group takes examples down to this share of its longest: below it, padding costs more than another group's calls.
MIN_LENGTH_SHARE = 0.5
#: A group whose pad is this small is never split: the cost of a call is then larger than that of the padding.
SMALL_GROUP_TOKENS = 4096


def packed_layout(lengths: Sequence[int], device: torch.device | str = "cpu") -> PackedLayout:
    """Layout of examples of these lengths (tokens, each > 0), in this order, one after the other."""
    lengths_E = np.asarray(lengths, dtype=np.int64)
    starts_E1 = np.concatenate([[0], np.cumsum(lengths_E)])
    total = int(starts_E1[-1])
    position_ids_N = np.arange(total) - np.repeat(starts_E1[:-1], lengths_E)
    groups = []
    by_length = np.argsort(-lengths_E, kind="stable")
    at = 0
    while at < len(by_length):
        rest = lengths_E[by_length[at:]]
        longest = int(rest[0])
        long_enough = int(np.searchsorted(-rest, -longest * MIN_LENGTH_SHARE, side="right"))
        count = min(len(rest), max(long_enough, SMALL_GROUP_TOKENS // longest))
        members = np.sort(by_length[at : at + count])
        at += count
        inside_EL = np.arange(longest)[None, :]
        real_EL = inside_EL < lengths_E[members][:, None]
        flat_EL = starts_E1[members][:, None] + inside_EL
        groups.append(
            Group(
                len(members),
                longest,
                torch.from_numpy(flat_EL[real_EL]).to(device),
                torch.from_numpy(np.flatnonzero(real_EL)).to(device),
                torch.from_numpy(np.where(real_EL, flat_EL, 0).ravel()).to(device),
            )
        )
    return PackedLayout(
        torch.from_numpy(starts_E1.astype(np.int32)).to(device),
        int(lengths_E.max()),
        torch.from_numpy(position_ids_N)[None].to(device),
        tuple(groups),
    )


class _Pad(torch.autograd.Function):
    """(N, H, D) -> (E * L, H, D). Real positions appear once, so the gradient is a plain gather: no atomic adds."""

    @staticmethod
    def forward(ctx: Any, x_NHD: Tensor, group: Group) -> Tensor:
        ctx.group, ctx.shape = group, x_NHD.shape
        return x_NHD.index_select(0, group.padded_EL)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _place(grad, ctx.group.slots_G, ctx.group.tokens_G, ctx.shape), None


class _Unpad(torch.autograd.Function):
    """(E * L, H, D) -> (N, H, D), zero at the tokens of other groups."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, tokens: int) -> Tensor:
        ctx.group, ctx.shape = group, x.shape
        return _place(x, group.slots_G, group.tokens_G, torch.Size((tokens, *x.shape[1:])))

    @staticmethod
    def backward(ctx: Any, grad_NHD: Tensor) -> tuple[Tensor, None, None]:
        return _place(grad_NHD, ctx.group.tokens_G, ctx.group.slots_G, ctx.shape), None, None


def _place(x: Tensor, from_G: Tensor, to_G: Tensor, shape: torch.Size) -> Tensor:
    moved = x.index_select(0, from_G)
    if len(to_G) == shape[0]:  # positions ascend, so filling all of them is filling them in order
        return moved
    out = x.new_zeros(shape)
    out[to_G] = moved
    return out


def _grouped_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    tokens = q_NHD.shape[0]
    out_NHD: Tensor | None = None
    for group in layout.groups:
        shape = (group.examples, group.longest)
        # A lone group of equally long examples already is (E, L).
        padded = len(layout.groups) > 1 or group.examples * group.longest != tokens
        q, k, v = (_Pad.apply(x, group) for x in (q_NHD, k_NHD, v_NHD)) if padded else (q_NHD, k_NHD, v_NHD)
        q, k, v = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        part = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
        )
        part = part.transpose(1, 2).reshape(group.examples * group.longest, *q_NHD.shape[1:])
        if padded:
            part = _Unpad.apply(part, group, tokens)
        out_NHD = part if out_NHD is None else out_NHD + part
    assert out_NHD is not None
    return out_NHD


def _masked_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """By one dense N x N mask: slower than groups, but shapes follow from N alone, as torch.compile wants it."""
    at_N = torch.arange(q_NHD.shape[0], device=q_NHD.device, dtype=layout.starts_E1.dtype)
    example_N = torch.searchsorted(layout.starts_E1, at_N, right=True)
    mask_NN = (example_N[:, None] == example_N[None, :]) & (at_N[:, None] >= at_N[None, :])
    q, k, v = (x.transpose(0, 1)[None] for x in (q_NHD, k_NHD, v_NHD))
    out = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask_NN, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )
    return out[0].transpose(0, 1)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers. Query (1, H, N, D), keys and values (1, H_kv, N, D) -> (1, N, H, D).

    Without `packed` (generation, evaluation) this is transformers' own `sdpa`.
    Raises PandaError for what the packed path does not do: dropout, soft capping, a window shorter than an example.
    """
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    window = kwargs.get("sliding_window")
    if dropout or kwargs.get("softcap") is not None or (window is not None and packed.longest > window):
        raise PandaError(
            "Packed training supports neither attention dropout nor soft capping, nor examples longer than a sliding window "
            f"(window {window}, longest example {packed.longest}): change config.json or shorten sequence_length."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q_NHD, k_NHD, v_NHD = (x[0].transpose(0, 1) for x in (query, key, value))
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)  # rotated queries and keys come in float32
        q_NHD, k_NHD, v_NHD = q_NHD.to(dtype), k_NHD.to(dtype), v_NHD.to(dtype)
    if kind == "cuda" and q_NHD.dtype in (torch.bfloat16, torch.float16):
        out = varlen_attn(
            q_NHD.contiguous(),
            k_NHD.contiguous(),
            v_NHD.contiguous(),
            packed.starts_E1,
            packed.starts_E1,
            packed.longest,
            packed.longest,
            scale=scale,
            window_size=(-1, 0),
            enable_gqa=k_NHD.shape[1] != q_NHD.shape[1],
        )
        assert isinstance(out, Tensor)
        return out[None], None
    if torch.compiler.is_compiling():
        return _masked_attention(q_NHD, k_NHD, v_NHD, packed, scale)[None], None
    if kind == "cpu" and (packed.by_example or q_NHD.dtype == torch.bfloat16):
        out_NHD: Tensor = BlockAttention.apply(q_NHD, k_NHD, v_NHD, packed.starts_E1.tolist(), scale)
        return out_NHD[None], None
    return _grouped_attention(q_NHD, k_NHD, v_NHD, packed, scale)[None], None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
# Only ordinary batches reach this: packed ones hand transformers a finished mask (see `packed_hidden`).
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)


def packed_hidden(model: Any, input_ids_1N: Tensor, layout: PackedLayout) -> Tensor:
    """Last hidden states (1, N, width) of examples laid flat, each as if it were alone. `model` from `load_model`."""
    # A 4D mask is passed through untouched: without it transformers would build a dense N x N mask.
    passed_through = torch.empty((1, 1, 1, 1), device=input_ids_1N.device)
    return model.base_model(
        input_ids=input_ids_1N,
        position_ids=layout.position_ids_1N,
        attention_mask=passed_through,
        use_cache=False,
        packed=layout,
    ).last_hidden_state


#: Largest allowed root mean square of the difference, relative to the logits', by the dtype computed in.
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
#: Odd text rounds worse than that: what is allowed then, in multiples of the text's own rounding (its logits alone against float32).
PROBE_ROUNDING = 3.0


@torch.no_grad()
def packing_probe(
    model: Any,
    rows: Iterable[Sequence[Sequence[int]]],
    dtype: torch.dtype = torch.float32,
    *,
    by_example: bool = False,
) -> float:
    """Check on a few rows (each a list of examples, each a list of token ids) that packing leaks nothing.

    Compares logits as training computes them (flat, packed, head applied to the last hidden state) with the model's
    own forward on each example alone. `by_example`: as in `PackedLayout`. Returns the largest relative difference seen.
    Raises PandaError when it is above `PROBE_TOLERANCE[dtype]`, and in bfloat16 also above what rounding alone does to that example.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    worst, leaks = 0.0, False
    try:
        for row in rows:
            examples = [torch.tensor(list(example), device=device) for example in row if len(example)]
            if not examples:
                continue
            layout = replace(packed_layout([len(e) for e in examples], device), by_example=by_example)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                together = model.get_output_embeddings()(packed_hidden(model, torch.cat(examples)[None], layout))[0]
                parts = together.float().split([len(e) for e in examples])
                for ids, packed_TV in zip(examples, parts):
                    alone_TV = model(input_ids=ids[None], use_cache=False).logits[0].float()
                    difference = _relative(packed_TV, alone_TV)
                    worst = max(worst, difference)
                    if difference <= PROBE_TOLERANCE[dtype]:
                        continue
                    with torch.autocast(device.type, enabled=False):
                        exact_TV = model(input_ids=ids[None], use_cache=False).logits[0].float()
                    rounding = 0.0 if dtype == torch.float32 else PROBE_ROUNDING * _relative(alone_TV, exact_TV)
                    leaks = leaks or not difference <= rounding
    finally:
        model.train(training)
    if leaks:
        raise PandaError(
            f"Packed examples give other logits than the same examples alone (relative difference {worst:.2g}): they "
            "would leak into each other, or this architecture changes its logits after the head, so training refuses."
        )
    return worst


def _relative(a_TV: Tensor, b_TV: Tensor) -> float:
    """Root mean square of the difference, relative to that of `b_TV`."""
    size = b_TV.square().mean().sqrt().clamp_min(1e-20)
    return float((a_TV - b_TV).square().mean().sqrt() / size)

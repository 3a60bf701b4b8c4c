"""Which tensor of the base each tensor of the target is coded against, and how."""

import re
from collections import defaultdict
from dataclasses import dataclass, replace

from pandallm.release.codec import FLOATS
from pandallm.release.weights import ModelFolder, Tensor, tensor_digest

#: `base_model.model.NAME.lora_A.weight` and its like, in PEFT's adapters.
_ADAPTED = re.compile(r"(?:base_model\.model\.)?(.+?)\.(?:lora_|vera_|oft_|hada_|lokr_|ia3_)\w+(?:\..+)?")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Match:
    """A tensor of the target, its reference in the base, and the op that makes it from there."""

    tensor: Tensor
    reference: Tensor | None
    op: str


def match(base: ModelFolder, target: ModelFolder) -> list[Match]:
    """One match for each tensor of the target, in the order of its files.

    A tensor that the base lacks by name is looked for under another: the same without PEFT's prefix; for an output
    matrix, the embeddings that it is tied to; the one tensor that shares the longest end of its dotted name and its
    shape; the one with the same contents. A wrong guess costs size, never correctness.
    """
    tensors = [t for file in target.weights.values() for t in file.tensors]
    found: dict[str, Tensor] = {t.name: base.tensors[t.name] for t in tensors if t.name in base.tensors}
    if target.adapter:
        adapted = {t.name: _adapted(t.name, base) for t in tensors if t.name not in found}
        found |= {name: reference for name, reference in adapted.items() if reference is not None}
    else:
        _renamed([t for t in tensors if t.name not in found], base, found)
        for tensor in tensors:
            if tensor.name not in found and tensor.name.endswith(_HEADS):
                tied = [t for n, t in base.tensors.items() if n.endswith(_EMBEDDINGS)]
                if len(tied) == 1:
                    found[tensor.name] = tied[0]
    matches = [Match(t, found.get(t.name), _op(t, found.get(t.name))) for t in tensors]
    # An adapter's own tensors are no rows of the weights that they adapt, whatever their shape.
    return [replace(m, op="whole") if target.adapter and m.op == "rows" else m for m in matches]


def _op(target: Tensor, reference: Tensor | None) -> str:
    if reference is None:
        return "whole"
    alike = target.dtype == reference.dtype
    if not alike and not {target.dtype, reference.dtype} <= set(FLOATS):
        return "whole"
    if target.shape == reference.shape:
        return "delta" if alike else "cast"
    same_rows = len(target.shape) == len(reference.shape) > 0 and target.shape[1:] == reference.shape[1:]
    return "rows" if same_rows else "whole"


def _adapted(name: str, base: ModelFolder) -> Tensor | None:
    """The weight of the base that an adapter's tensor belongs to: by it, another base is told."""
    plain = name.removeprefix("base_model.model.").replace(".modules_to_save.", ".").replace(".base_layer.", ".")
    if plain in base.tensors:
        return base.tensors[plain]
    part = _ADAPTED.fullmatch(name)
    return base.tensors.get(f"{part[1]}.weight") if part else None


def _renamed(missing: list[Tensor], base: ModelFolder, found: dict[str, Tensor]) -> None:
    """Add to `found` what the base has under another name."""
    taken = {t.name for t in found.values()}
    free = {n: t for n, t in base.tensors.items() if n not in taken}
    by_end: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, tensor in free.items():
        for end in _ends(name):
            by_end[end, tensor.shape].append(name)
    for tensor in missing:
        for end in _ends(tensor.name):
            candidates = [n for n in by_end[end, tensor.shape] if n in free]
            if candidates:
                if len(candidates) == 1:
                    found[tensor.name] = free.pop(candidates[0])
                break
    rest = [t for t in missing if t.name not in found]
    kinds = {(t.dtype, t.shape) for t in rest}
    contents = {tensor_digest(t): t for t in free.values() if (t.dtype, t.shape) in kinds}
    for tensor in rest if contents else ():
        reference = contents.pop(tensor_digest(tensor), None)
        if reference is not None:
            found[tensor.name] = reference


def _ends(name: str) -> list[str]:
    """Ends of a dotted name, longest first, that still tell tensors apart: two parts at least."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(max(len(parts) - 1, 1))]

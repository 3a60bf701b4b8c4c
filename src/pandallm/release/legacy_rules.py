"""The arithmetic of the deltas of 2023, and how their layouts are told apart.

FastChat subtracts every tensor. Panda's scripts do too, but ship the embeddings and the output matrix whole. Alpaca's
`weight_diff.py` gives the base's embeddings a mean row for the added pad token before it subtracts. The rules are spelled
out in `docs/legacy-deltas.md`.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from pandallm.errors import BadInput
from pandallm.release.codec import CHUNK, FLOATS, ITEM_BYTES, cast
from pandallm.release.stream import in_order
from pandallm.release.weights import ModelFolder, Tensor, read_elements, spans, tensor_digest

Layout = Literal["fastchat", "panda", "alpaca"]
LAYOUTS: tuple[Layout, ...] = ("fastchat", "panda", "alpaca")
#: How often base and stored difference count in a tied matrix: target = a x base + b x stored.
Tied = Literal["once", "twice", "half"]
TIED: dict[Tied, tuple[int, int]] = {"once": (1, 1), "twice": (2, 1), "half": (1, 2)}
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
#: A buffer that old checkpoints hold and current transformers computes.
ROTARY = "rotary_emb.inv_freq"
_INTEGERS = ("U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")
_SAMPLED_CHUNKS = 16
_NONE = np.empty(0, np.float32)

F32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Term:
    """One tensor of a legacy delta against the base.

    other: the tensor of the delta, or of the target when a delta is made. base: None where it is taken as it is.
    base_dtype: what base and target are rounded to first (FastChat loads both as fp16), or None. factors: see `TIED`.
    new_row: what the rows that the base lacks count as, float32; empty for zeros. dtype: of what comes out.
    """

    other: Tensor
    base: Tensor | None
    base_dtype: str | None
    factors: tuple[int, int]
    new_row: F32
    dtype: str


def _floats(data: bytes, dtype: str, first_as: str | None = None) -> F32:
    if first_as is not None:
        data, dtype = cast(data, dtype, first_as), first_as
    return np.frombuffer(cast(data, dtype, "F32"), "<f4")


def _base_values(term: Term, first: int, count: int) -> F32:
    """Elements of the base as float32, followed by those of the new row where the base ends."""
    assert term.base is not None
    there = max(0, min(count, term.base.count - first))
    out = np.zeros(count, np.float32)
    if there:
        out[:there] = _floats(read_elements(term.base, first, there), term.base.dtype, term.base_dtype)
    if there < count and term.new_row.size:
        out[there:] = term.new_row[np.arange(first + there, first + count) % term.new_row.size]
    return out


def _wrapped(term: Term, first: int, count: int, sign: int) -> bytes:
    """Integer tensors: as PyTorch adds them, modulo their range."""
    assert term.base is not None
    kind = np.dtype(f"<u{ITEM_BYTES[term.other.dtype]}")
    left, right = (np.frombuffer(read_elements(t, first, count), kind) for t in (term.other, term.base))
    return bytes((left + right if sign > 0 else left - right).tobytes())


def restored(term: Term, first: int, count: int) -> bytes:
    """Elements of the target: base + delta in float32, rounded once to `dtype`."""
    data = read_elements(term.other, first, count)
    if term.base is None:
        return cast(data, term.other.dtype, term.dtype)
    if term.other.dtype not in FLOATS:
        return _wrapped(term, first, count, 1)
    return _sum(term, data, term.other.dtype, first, count)


def _sum(term: Term, data: bytes, dtype: str, first: int, count: int) -> bytes:
    a, b = term.factors
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.float32(a) * _base_values(term, first, count) + np.float32(b) * _floats(data, dtype)
    return cast(total.astype("<f4").tobytes(), "F32", term.dtype)


def stored(term: Term, first: int, count: int) -> tuple[bytes, bytes, int]:
    """(elements of the delta, of what `restored` makes of them, how many of these are not the target's).

    The difference is taken in float32 and rounded once to `dtype`; the target counts as rounded to `dtype`.
    """
    data = read_elements(term.other, first, count)
    wanted = cast(data, term.other.dtype, term.dtype)
    if term.base is None:
        return wanted, wanted, 0
    if term.other.dtype not in FLOATS:
        return _wrapped(term, first, count, -1), data, 0
    a, b = term.factors
    target = _floats(data, term.other.dtype, term.base_dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = (target - np.float32(a) * _base_values(term, first, count)) / np.float32(b)
    delta = cast(difference.astype("<f4").tobytes(), "F32", term.dtype)
    again = _sum(term, delta, term.dtype, first, count)
    kind = np.dtype(f"<u{ITEM_BYTES[term.dtype]}")
    lost = int(np.count_nonzero(np.frombuffer(again, kind) != np.frombuffer(wanted, kind)))
    return delta, again, lost


def mean_row(tensor: Tensor) -> F32:
    """Mean of a matrix's rows, added in float64 and rounded to float32: the row that Alpaca's script gives a new token."""
    width = prod(tensor.shape[1:])
    if not tensor.count:
        return np.zeros(width, np.float32)
    rows = max(1, CHUNK // width)
    total = np.zeros(width)
    for first in range(0, tensor.shape[0], rows):
        count = min(rows, tensor.shape[0] - first)
        part = _floats(read_elements(tensor, first * width, count * width), tensor.dtype)
        total += part.reshape(count, width).sum(axis=0, dtype=np.float64)
    return (total / tensor.shape[0]).astype(np.float32)


def find(folder: ModelFolder, endings: tuple[str, ...]) -> Tensor | None:
    """The one tensor whose name ends so."""
    found = [t for n, t in folder.tensors.items() if n.endswith(endings)]
    return found[0] if len(found) == 1 else None


def is_tied(other: ModelFolder, base: ModelFolder) -> bool:
    """Whether embeddings and output matrix of a delta (or target) are one: no output matrix, or the same bytes twice.

    A base whose own two matrices differ is not tied, and neither is a delta against it that holds both.
    """
    embedding, head = find(other, EMBEDDINGS), find(other, HEADS)
    if embedding is None:
        return False
    if head is None:
        return find(base, HEADS) is None or _same(find(base, EMBEDDINGS), find(base, HEADS))
    return _same(embedding, head) and (find(base, HEADS) is None or _same(find(base, EMBEDDINGS), find(base, HEADS)))


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return tensor_digest(a) == tensor_digest(b)


@dataclass(frozen=True)
class Fit:
    """Squared sizes over a sample of the embeddings that base and delta share: which of them is small tells the layout.

    once: |delta|. whole: |delta - base|. twice: |delta + base|. base: |base|.
    """

    once: float
    whole: float
    twice: float
    base: float

    def best(self) -> Literal["once", "whole", "twice"] | None:
        """The smallest; None where even it is not small beside the base."""
        sizes: dict[Literal["once", "whole", "twice"], float] = {
            "once": self.once, "whole": self.whole, "twice": self.twice
        }  # fmt: skip
        name = min(sizes, key=sizes.__getitem__)
        return name if sizes[name] <= 0.5 * self.base else None


def fit(delta: Tensor, base: Tensor) -> Fit:
    """Compare a delta's embeddings with the base's."""
    cuts = list(spans(0, min(delta.count, base.count)))
    cuts = cuts[:: max(1, len(cuts) // _SAMPLED_CHUNKS)]

    def sizes(cut: tuple[int, int]) -> list[float]:
        d, b = (_floats(read_elements(t, *cut), t.dtype).astype(np.float64) for t in (delta, base))
        return [float(np.dot(v, v)) for v in (d, d - b, d + b, b)]

    totals = np.sum(list(in_order(sizes, cuts)), axis=0) if cuts else np.zeros(4)
    return Fit(*map(float, totals))


def plan(
    other: ModelFolder, base: ModelFolder, layout: Layout, tied: Tied | None, dtype: str | None, *, making: bool
) -> tuple[list[Term], list[str]]:
    """Terms in the order of `other`'s files, and the names that are left out (rotary buffers that the base lacks).

    other: the delta, or the target when a delta is being made (`making`). dtype: of what comes out, None for each
    tensor's own. BadInput names the first tensor that does not fit.
    """
    terms, left_out = [], []
    for file in other.weights.values():
        for tensor in file.tensors:
            reference = base.tensors.get(tensor.name)
            if tensor.name.endswith(ROTARY) and reference is None:
                left_out.append(tensor.name)
                continue
            kept = tensor.dtype not in FLOATS or tensor.name.endswith(ROTARY)
            out = tensor.dtype if kept or dtype is None else dtype
            if is_whole(tensor.name, layout) or tensor.dtype == "BOOL":
                terms.append(Term(tensor, None, None, (1, 1), _NONE, out))
                continue
            if reference is None and tensor.name.endswith(HEADS):
                reference = find(base, EMBEDDINGS)  # a base that is tied
            if reference is None:
                raise BadInput(
                    f"Wrong base: it has no tensor {tensor.name!r}, which the delta adds to. Nothing was written."
                )
            _check(tensor, reference)
            matrix = tensor.name.endswith(EMBEDDINGS + HEADS)
            grown = matrix and layout == "alpaca" and tensor.count > reference.count
            first_as = (out if making else tensor.dtype) if layout == "fastchat" else None
            terms.append(
                Term(
                    tensor,
                    reference,
                    first_as if tensor.dtype in FLOATS else None,
                    TIED[tied] if matrix and tied else (1, 1),
                    mean_row(reference) if grown else _NONE,
                    out,
                )
            )
    return terms, left_out


def is_whole(name: str, layout: Layout) -> bool:
    """Whether the layout ships this tensor as it is: the published test of Panda's scripts."""
    return layout == "panda" and ("embed_tokens" in name or "lm_head.weight" in name)


def _check(tensor: Tensor, reference: Tensor) -> None:
    kinds = {tensor.dtype, reference.dtype}
    if not kinds <= set(FLOATS) and not (len(kinds) == 1 and tensor.dtype in _INTEGERS):
        raise BadInput(
            f"Tensor {tensor.name!r} is {tensor.dtype} and the base's is {reference.dtype}; "
            "legacy deltas are added in BF16, F16 or F32."
        )
    if tensor.shape == reference.shape:
        return
    rows = len(tensor.shape) == len(reference.shape) == 2 and tensor.shape[1] == reference.shape[1]
    if not rows or not tensor.name.endswith(EMBEDDINGS + HEADS) or tensor.dtype not in FLOATS:
        raise BadInput(
            f"Wrong base: tensor {tensor.name!r} is {list(reference.shape)}, the delta needs {list(tensor.shape)}. "
            "Nothing was written."
        )

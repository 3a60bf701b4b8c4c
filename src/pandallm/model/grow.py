"""Rows for new tokens: a model whose embeddings and output matrix go on after the old ones, which stay as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pandallm.errors import BadInput
from pandallm.model.folder import load_model, save_model

if TYPE_CHECKING:
    from torch import Tensor

Init = Literal["mean", "mean_all", "normal"]


def grow_rows(
    base: Path,
    out: Path,
    first: int,
    parts: Sequence[Sequence[int]],
    *,
    init: Init = "mean",
    pad_to_multiple: int = 64,
    seed: int = 0,
) -> dict[str, int]:
    """Write to `out` the model of the folder `base` with rows for the new ids first, first + 1, ... (weights and config; no tokenizer).

    parts: for each new id the old ids that spell it. init, of the rows of the input and of the output matrix (one where they are tied):
    `mean`, of the rows of its parts, so that in any context a new token's logit is the mean of its parts' and never the largest;
    `mean_all`, of all old rows; `normal`, drawn about that with each dimension's own standard deviation (Hewitt 2021) by `seed`.
    A token without parts and rows that only pad get `mean_all`. Rows of the base from `first` on, which no token had, are taken first;
    the number of rows grows to a multiple of `pad_to_multiple` if it must grow. Weights keep their type.
    Returns {"rows_before", "rows", "parameters"}. Raises BadInput for a model whose rows do not hold its tokenizer's ids.
    """
    import torch

    model: Any = load_model(base, "auto")
    before = int(model.get_input_embeddings().weight.shape[0])
    known = min(first, before)  # a tokenizer may hold an added token that the model has no row for
    if any(i >= before for p in parts for i in p):
        raise BadInput(
            f"{base} has {before} rows, but its tokenizer holds {first} tokens: tokenizer and weights do not belong together."
        )
    after = first + len(parts)
    rows = before if after <= before else -(-after // pad_to_multiple) * pad_to_multiple
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        old = {name: matrix[:before].clone() for name, matrix in _matrices(model).items()}
        if rows > before:
            model.resize_token_embeddings(rows, mean_resizing=False)
        for name, matrix in _matrices(model).items():
            matrix[:before] = old[name]
            if rows > before:
                matrix[before:] = old[name][:known].double().mean(0).to(matrix.dtype)
            matrix[first:after] = _new_rows(old[name][:known], parts, init, generator)
    model.config.vocab_size = rows
    model.config.pandallm_new_rows = [first, after]  # for `trainable: [new_rows]` of later stages
    save_model(model, None, out)
    return {"rows_before": before, "rows": rows, "parameters": int(model.num_parameters())}


def _matrices(model: Any) -> dict[str, "Tensor"]:
    """What has a row per token: the embeddings, an output matrix of its own, its bias."""
    found = {"input": model.get_input_embeddings().weight}
    head = model.get_output_embeddings()
    if head is not None:
        if head.weight.data_ptr() != found["input"].data_ptr():
            found["output"] = head.weight
        if getattr(head, "bias", None) is not None:
            found["bias"] = head.bias
    return found


def _new_rows(old: "Tensor", parts: Sequence[Sequence[int]], init: Init, generator: Any) -> "Tensor":
    """old: (tokens, width) or (tokens,). Returns (new tokens, ...) in the type of `old`; sums run in float64."""
    import torch

    everything = old.double()
    mean = everything.mean(0)
    rows = mean.expand(len(parts), *mean.shape).clone()
    if init == "normal":
        rows += torch.randn(rows.shape, generator=generator, dtype=torch.float64) * everything.std(0)
    elif init == "mean":
        for row, ids in zip(rows, parts):
            if ids:
                row.copy_(everything[list(ids)].mean(0))
    return rows.to(old.dtype)

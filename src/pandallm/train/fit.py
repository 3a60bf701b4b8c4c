"""Whether a model and packs belong together, and the model is sound: checked before the first step."""

from pathlib import Path
from typing import Any

from pandallm.errors import BadInput


def check_fit(model: Any, tokenizer: Any, packs: Any, folder: Path, start: Path) -> None:
    """Raise BadInput, naming both sides, when the packs (of `folder`) were not made for this model (of `start`)."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise BadInput(
            f"{start}: the tokenizer has {len(tokenizer)} tokens, the model {vocabulary}: they do not belong together."
        )
    if not packs.steps:
        raise BadInput(f"{folder} holds no training step: give the stage more text or a larger budget.")
    longest = model.config.max_position_embeddings
    if packs.sequence_length > longest:
        raise BadInput(
            f"sequence_length {packs.sequence_length} is more than the {longest} positions of the model {start}."
        )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise BadInput(f"{start}: models whose output layer has a bias are not supported in training.")
    ids, mask = packs.arrays["input_ids"], packs.arrays["loss_mask"]
    block = 2**24  # tokens read at once
    largest = max(int(ids[at : at + block].max()) for at in range(0, len(ids), block))
    if largest >= vocabulary:
        raise BadInput(
            f"{folder} holds token {largest}, the model {start} has only {vocabulary}: pack with its tokenizer."
        )
    if not any(mask[at : at + block].any() for at in range(0, len(mask), block)):
        raise BadInput(f"{folder} holds no trained token: check the loss masks (`panda data show`).")


def check_finite(model: Any, start: Path) -> None:
    """Raise BadInput, naming the first tensor with a number that is not finite."""
    import torch

    named = dict(model.named_parameters())
    # A sum of finite numbers may overflow, so it says only where to look.
    sums = torch.stack([p.detach().sum().float() for p in named.values()])
    for name, finite in zip(named, torch.isfinite(sums).tolist(), strict=True):
        if not finite and (wrong := int((~torch.isfinite(named[name].detach())).sum())):
            raise BadInput(
                f"{start}: {wrong} of the {named[name].numel():,} numbers of {name} are not finite: "
                "copy or download the model again, or start from an earlier stage."
            )


def check_ranks(packs: Any, ranks: int) -> None:
    """Raise BadInput where some ranks would never have a row."""
    if ranks > packs.batch_sequences:
        raise BadInput(
            f"A step has {packs.batch_sequences} rows (batch_sequences), too few for {ranks} processes: "
            f"start at most {packs.batch_sequences}."
        )

"""Greedy generation in batches: own loop with a key-value cache, so that no stored sampling setting leaks in."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from pandallm.evaluate.likelihood import batches

#: Steps between looks at the texts so far (decoding costs more than a step of a tiny model).
LOOK_EVERY = 4


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_tokens: int,
    settled: Callable[[int, str], bool] = lambda i, text: False,
    done: Callable[[int], bool] = lambda i: False,
) -> Iterator[list[tuple[int, str]]]:
    """Yields batches of (prompt index, completion text), greedily, longest prompts first.

    A completion ends at EOS (not part of the text), at `max_new_tokens`, or once `settled(index, text so far)`. Rows
    are left-padded. Batches do not depend on `done` (prompts already answered).
    """
    lengths = [len(p) + max_new_tokens for p in prompts]
    for batch in batches(lengths, batch_tokens):
        if not all(done(i) for i in batch):
            yield _generate_batch(model, tokenizer, batch, [prompts[i] for i in batch], max_new_tokens, settled)


def eos_ids(model: Any, tokenizer: Any) -> set[int]:
    """All tokens that end a completion: the tokenizer's EOS and those of the model's generation settings."""
    found = {tokenizer.eos_token_id}
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(stated if isinstance(stated, list) else [stated])
    return {int(i) for i in found if i is not None}


def _generate_batch(
    model: Any,
    tokenizer: Any,
    indices: Sequence[int],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    settled: Callable[[int, str], bool],
) -> list[tuple[int, str]]:
    from transformers import DynamicCache

    device = next(model.parameters()).device
    ends = eos_ids(model, tokenizer)
    size, rows = max(map(len, prompts)), len(prompts)
    ids = torch.zeros(rows, size, dtype=torch.long)
    mask = torch.zeros(rows, size, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids[b, size - len(prompt) :] = torch.tensor(list(prompt))
        mask[b, size - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    new: list[list[int]] = [[] for _ in prompts]
    over = [False] * rows
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        hidden = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        best = model.get_output_embeddings()(hidden[:, -1]).float().argmax(-1)
        for b, token in enumerate(best.tolist()):
            if not over[b]:
                over[b] = token in ends
                if not over[b]:
                    new[b].append(token)
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            for b in range(rows):
                over[b] = over[b] or settled(indices[b], _text(tokenizer, new[b]))
        if all(over):
            break
        ids = best[:, None]
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
    return [(i, _text(tokenizer, tokens)) for i, tokens in zip(indices, new)]


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

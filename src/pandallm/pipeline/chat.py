"""`panda chat`: talk to a model folder in the terminal."""

import sys
from pathlib import Path
from typing import Any

from pandallm.model.folder import load_model, load_tokenizer, resolve_device


def prompt_ids(tokenizer: Any, turns: list[dict[str, str]]) -> list[int]:
    """Token ids of a dialogue: through the tokenizer's chat template, or, where it has none, as training writes turns: text, then EOS after an answer."""
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return list(tokenizer.encode(text, add_special_tokens=False))
    ids: list[int] = (
        []
        if tokenizer.bos_token_id is None or not getattr(tokenizer, "add_bos_token", False)
        else [tokenizer.bos_token_id]
    )
    for turn in turns:
        text = turn["content"].replace("\\n", "\n")
        if turn["role"] == "user":
            text = text.rstrip("\n") + "\n"  # the adapters end every prompt with a line break
        ids += tokenizer.encode(text, add_special_tokens=False)
        if turn["role"] == "assistant":
            ids.append(tokenizer.eos_token_id)
    return ids


def reply(model: Any, tokenizer: Any, turns: list[dict[str, str]], *, max_new_tokens: int, temperature: float) -> str:
    """The model's next turn."""
    import torch

    ids = prompt_ids(tokenizer, turns)[-(model.config.max_position_embeddings - max_new_tokens) :]
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    inputs = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        out = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            **sampling,
        )
    return str(tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)).strip()


def chat_loop(folder: Path, *, max_new_tokens: int, temperature: float, device: str) -> None:
    """Read lines from stdin, answer on stdout. `\\n` in a line stands for a line break."""
    from pandallm.model.folder import check_model_folder

    check_model_folder(folder)
    where = resolve_device(device)
    model, tokenizer = load_model(folder, device=where), load_tokenizer(folder)
    max_new_tokens = min(max_new_tokens, model.config.max_position_embeddings // 2)
    interactive = sys.stdin.isatty()
    if interactive:
        print("Type and press Enter (\\n stands for a line break). /new forgets the dialogue; an empty line ends it.")
    turns: list[dict[str, str]] = []
    while True:
        try:
            line = input("you> " if interactive else "")
        except EOFError:
            break
        if not line.strip():
            break
        if line.strip() == "/new":
            turns = []
            continue
        turns.append({"role": "user", "content": line})
        answer = reply(model, tokenizer, turns, max_new_tokens=max_new_tokens, temperature=temperature)
        turns.append({"role": "assistant", "content": answer})
        print(f"{folder.name}> {answer}" if interactive else answer, flush=True)

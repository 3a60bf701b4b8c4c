"""`panda chat`: talk to a model folder in the terminal."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.folder import first_line, load_model, load_tokenizer, resolve_device

Turn = Mapping[str, str]


def prompt_ids(tokenizer: Any, turns: Sequence[Turn]) -> list[int]:
    """Token ids of a dialogue up to where the assistant answers, as training writes it.

    Through the tokenizer's chat template, cut as in training; without one, text after text, EOS after an answer. Special tokens that a
    message spells are text.
    Raises BadInput for a dialogue that the template refuses, and, where it cannot be cut, for a message that spells a special token.
    """
    if tokenizer.chat_template:
        return _templated(tokenizer, turns)
    bos = tokenizer.bos_token_id
    ids: list[int] = [bos] if bos is not None and getattr(tokenizer, "add_bos_token", False) else []
    for turn in turns:
        text = turn["content"]
        if turn["role"] != "assistant":
            text = text.rstrip("\n") + "\n"  # the adapters end every prompt with a line break
        ids += _plain_ids(tokenizer, text)
        if turn["role"] == "assistant":
            ids.append(tokenizer.eos_token_id)
    return ids


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text in which special tokens are text; a tokenizer without a fast one behind it cannot tell them apart."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return list(tokenizer.encode(text, add_special_tokens=False))
    before, fast.encode_special_tokens = fast.encode_special_tokens, True
    try:
        return list(fast.encode(text, add_special_tokens=False).ids)
    finally:
        fast.encode_special_tokens = before


def _templated(tokenizer: Any, turns: Sequence[Turn]) -> list[int]:
    from pandallm.data.chat import ChatEncoder
    from pandallm.data.chat_cut import ChatTemplate

    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        before = fast.encode_special_tokens
        try:
            template = ChatTemplate("own", tokenizer.get_chat_template(), tuple(sorted(tokens.items())))
            return ChatEncoder(fast, template).prompt(turns)
        except BadInput:
            pass  # it can be used whole all the same
        finally:
            fast.encode_special_tokens = before
    special = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    for turn in turns:
        if token := next((t for t in special if t in turn["content"]), None):
            raise BadInput(
                f"A message spells {token}, a special token of this model, and its chat template does not let it be told apart; "
                "write it otherwise."
            )
    try:
        text = tokenizer.apply_chat_template([dict(t) for t in turns], add_generation_prompt=True, tokenize=False)
    except Exception as e:  # whatever the template's own code raises
        raise BadInput(f"The model's chat template fails on this dialogue ({first_line(e)}).") from None
    return list(tokenizer.encode(text, add_special_tokens=False))


def fitting(tokenizer: Any, turns: Sequence[Turn], room: int) -> list[int]:
    """Token ids of the dialogue, without its oldest rounds where it is longer than `room`; a last question that is itself longer loses
    its beginning."""
    system = [t for t in turns[:1] if t["role"] == "system"]
    rounds = list(turns[len(system) :])
    ids = prompt_ids(tokenizer, [*system, *rounds])
    while len(ids) > room and len(rounds) > 2:
        rounds = rounds[2:]
        ids = prompt_ids(tokenizer, [*system, *rounds])
    return ids[-room:]


def reply(model: Any, tokenizer: Any, turns: Sequence[Turn], *, max_new_tokens: int, temperature: float) -> str:
    """The model's next turn; it ends at EOS or at the token that its generation settings name as the end of a turn."""
    import torch

    from pandallm.evaluate.generate import eos_ids

    ids = fitting(tokenizer, turns, model.config.max_position_embeddings - max_new_tokens)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    inputs = torch.tensor([ids], device=model.device)
    ends = sorted(eos_ids(model, tokenizer))
    with torch.inference_mode():
        out = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
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
        turns.append({"role": "user", "content": line.replace("\\n", "\n")})
        answer = reply(model, tokenizer, turns, max_new_tokens=max_new_tokens, temperature=temperature)
        turns.append({"role": "assistant", "content": answer})
        print(f"{folder.name}> {answer}" if interactive else answer, flush=True)

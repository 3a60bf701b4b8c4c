"""Tiny Llama folders and ways to look at and change folders."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pandallm.store import digest_json

os.environ.setdefault("OMP_NUM_THREADS", "1")


def save_llama(
    folder: Path,
    seed: int = 0,
    drift: float = 0.0,
    dtype: str = "float32",
    shard: str = "1GB",
    edit: Any = None,
    **config: Any,
) -> Path:
    """A random Llama with hidden size 32; `drift` moves its weights, `edit(model)` changes it before it is saved."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**settings | config))
    if drift:
        random = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + drift * torch.randn(p.shape, generator=random))
    if edit is not None:
        with torch.no_grad():
            edit(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text('{"invented": "a tokenizer"}' * 1000)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Contents of every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rewrite(delta: Path, change: Callable[[Any], object]) -> None:
    """Change a delta's manifest in place, and its own sha256 with it."""
    path = delta / "panda_delta.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest.pop("sha256", None)
    manifest["sha256"] = digest_json(manifest)
    path.write_text(json.dumps(manifest))

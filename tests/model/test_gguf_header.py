"""Headers of GGUF files, written here byte by byte, and what a plan makes of them."""

import struct
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.model.gguf_header import read_header
from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.base import gguf_shape

UINT32, STRING, LIST = 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(name: str, value: int) -> bytes:
    return text(name) + struct.pack("<II", UINT32, value)


def write_gguf(file: Path, *, kv_heads: bytes | None = None, version: int = 3) -> Path:
    pieces = ["<s>", "水", "木"]
    settings = [
        text("general.architecture") + struct.pack("<I", STRING) + text("llama"),
        number("llama.embedding_length", 16),
        number("llama.block_count", 2),
        number("llama.attention.head_count", 4),
        kv_heads or number("llama.attention.head_count_kv", 2),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", LIST, STRING, len(pieces)) + b"".join(map(text, pieces)),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", LIST, 6, 3) + struct.pack("<3f", 0, 1, 2),
        number("llama.feed_forward_length", 24),
        number("llama.context_length", 128),
    ]
    tensors = [text(n) + struct.pack("<IQQIQ", 2, 16, 3, 0, 0) for n in ("token_embd.weight", "blk.0.attn_q.bias")]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    file.write_bytes(head + b"".join(settings) + b"".join(tensors) + bytes(64))
    return file


def test_settings_and_names_of_tensors(tmp_path: Path) -> None:
    settings, tensors = read_header(write_gguf(tmp_path / "m.gguf"))
    assert settings["general.architecture"] == "llama"
    assert settings["llama.context_length"] == 128
    assert len(settings["tokenizer.ggml.tokens"]) == len(settings["tokenizer.ggml.scores"]) == 3
    assert tensors == {"token_embd.weight", "blk.0.attn_q.bias"}


def test_the_shape_of_a_file(tmp_path: Path) -> None:
    assert gguf_shape(write_gguf(tmp_path / "m.gguf")) == ModelShape(
        16, 2, 4, 2, 4, 24, 3, max_position_embeddings=128, tie_embeddings=True, attention_bias=True
    )


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    file = tmp_path / "bad.gguf"
    for content in (b"", b"GGML" + whole[4:], whole[:100], whole[:30], whole[:8] + b"\xff" * 16 + whole[24:]):
        file.write_bytes(content)
        with pytest.raises(BadInput, match=r"bad\.gguf is not a readable GGUF file .*; give base\.shape\."):
            gguf_shape(file)
    with pytest.raises(BadInput, match="version 9"):
        gguf_shape(write_gguf(file, version=9))
    by_layer = text("llama.attention.head_count_kv") + struct.pack("<IIQ", LIST, UINT32, 2) + struct.pack("<2I", 2, 1)
    with pytest.raises(BadInput, match=r"lacks llama\.attention\.head_count_kv"):
        gguf_shape(write_gguf(file, kv_heads=by_layer))

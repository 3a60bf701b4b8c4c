"""Packs by the contract of docs/design.md, and a model small enough for every test."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pandallm.train.spec import OptimizerSpec, TrainSpec

VOCABULARY = 258


class AfterSteps(float):
    """A deadline that has passed once `done` holds `count` steps."""

    def __new__(cls, done: list[int], count: int) -> "AfterSteps":
        self = super().__new__(cls, 0.0)
        self.done, self.count = done, count  # type: ignore[attr-defined]
        return self

    def __le__(self, now: float) -> bool:
        return len(self.done) >= self.count  # type: ignore[attr-defined]


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of each optimizer step from now on."""
    import pandallm.train.step as step

    one_step, done = step.optimizer_step, list[int]()

    def counted(*positional: Any, **named: Any) -> Any:
        done.append(named["step"])
        return one_step(*positional, **named)

    monkeypatch.setattr(step, "optimizer_step", counted)
    return done


Example = tuple[list[int], list[int]]  # token ids, loss mask


def invented_examples(count: int, seed: int = 0, longest: int = 24, vocabulary: int = 200) -> list[Example]:
    """Token ids with some order in them, half of the examples with an untrained beginning."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        length = int(rng.integers(3, longest + 1))
        ids = (rng.integers(2, vocabulary) + np.arange(length) * rng.integers(1, 4)) % (vocabulary - 2) + 2
        untrained = length // 2 if number % 2 else 0
        examples.append((ids.tolist(), [0] * untrained + [1] * (length - untrained)))
    return examples


def write_packs(
    folder: Path,
    rows: Sequence[Sequence[int]],
    examples: Sequence[Example],
    *,
    batch_sequences: int,
    epochs: int = 1,
    sequence_length: int = 64,
    sources: Sequence[str] = ("even", "odd"),
) -> Path:
    """`rows` name the examples that lie in them; example i belongs to source i modulo their number."""
    folder.mkdir(parents=True)
    flat = [i for row in rows for i in row]
    lengths = [len(examples[i][0]) for i in flat]
    np.save(folder / "input_ids.npy", np.array([t for i in flat for t in examples[i][0]], dtype=np.uint16))
    np.save(folder / "loss_mask.npy", np.array([m for i in flat for m in examples[i][1]], dtype=np.uint8))
    np.save(folder / "example_ids.npy", np.repeat(np.array(flat, dtype=np.int32), lengths))
    np.save(folder / "source_ids.npy", np.repeat(np.array([i % len(sources) for i in flat], dtype=np.uint8), lengths))
    row_lengths = [sum(len(examples[i][0]) for i in row) for row in rows]
    np.save(folder / "row_offsets.npy", np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int64))
    trained = [sum(sum(examples[i][1]) for i in row) for row in rows]
    np.save(folder / "row_trained_tokens.npy", np.array(trained, dtype=np.int32))
    np.save(folder / "order.npy", np.tile(np.arange(len(rows), dtype=np.int32), epochs))
    table = {
        "id": [f"example-{i}" for i in range(len(examples))],
        "source": [sources[i % len(sources)] for i in range(len(examples))],
        "language": ["zh"] * len(examples),
        "tokens": [len(e[0]) for e in examples],
        "trained_tokens": [sum(e[1]) for e in examples],
        "utf8_bytes": [len(e[0]) for e in examples],
    }
    pq.write_table(pa.table(table), folder / "examples.parquet")
    facts = {
        "sequence_length": sequence_length,
        "batch_sequences": batch_sequences,
        "rows": len(rows),
        "steps": -(-len(rows) * epochs // batch_sequences),
        "sources": list(sources),
        "languages": ["zh"],
        "eos_id": 0,
        "ledger": {},
    }
    (folder / "pack.json").write_text(json.dumps(facts))
    return folder


def first_fit(examples: Sequence[Example], sequence_length: int) -> list[list[int]]:
    """Consecutive examples in rows of at most `sequence_length` tokens."""
    rows: list[list[int]] = []
    room = 0
    for number, (ids, _) in enumerate(examples):
        if not rows or len(ids) > room:
            rows.append([])
            room = sequence_length
        rows[-1].append(number)
        room -= len(ids)
    return rows


def make_base(folder: Path) -> Path:
    """A random Llama (width 32, two layers) with a byte tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from pandallm.model.scratch import init_scratch
    from pandallm.model.spec import ArchitectureSpec

    vocab = {"<eos>": 0, "<pad>": 1}
    for piece in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[piece] = len(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    tokenizer.save_pretrained(folder / "tokenizer")
    spec = ArchitectureSpec(
        hidden_size=32,
        layers=2,
        heads=4,
        kv_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        embedding_std=0.7,
        matrix_std=0.1,
    )
    init_scratch(spec, folder / "tokenizer", folder / "model", seed=3)
    return folder / "model"


def tiny_spec(**changes: Any) -> TrainSpec:
    """Settings for the tiny base."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "sequence_length": 64,
        "batch_sequences": 2,
        "micro_batch_tokens": 64,
        "optimizer": OptimizerSpec(lr=3e-3, warmup=2, weight_decay=0.01),
    }
    return TrainSpec(**(settings | changes))


def metrics(work: Path) -> list[dict[str, Any]]:
    """The stage's log, one dict a step."""
    return [json.loads(line) for line in (work / "logs" / "metrics.jsonl").read_text().splitlines()]


def weights(work: Path) -> dict[str, torch.Tensor]:
    """The saved model's tensors."""
    return load_file(work / "model" / "model.safetensors")

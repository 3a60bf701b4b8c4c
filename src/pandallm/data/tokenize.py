"""Examples -> tokens, turn by turn, so that the boundary between prompt and answer is exact."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pandallm.data.corpus import part_batches
from pandallm.data.parallel import ordered_map
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_EXAMPLES = 512


@dataclass(frozen=True)
class TokenizerFacts:
    """A fast tokenizer's file and the ids that examples are framed with; bos_id is None where none is put in front."""

    file: Path
    eos_id: int
    bos_id: int | None
    vocabulary: int


def tokenizer_facts(path: Path, add_bos: bool | None = None) -> TokenizerFacts:
    """Read a tokenizer folder (or its tokenizer.json).

    add_bos None: `add_bos_token` of tokenizer_config.json; where that says nothing, whether the tokenizer itself puts
    BOS in front of a text. Raises BadInput where there is no fast tokenizer, no EOS, or BOS is wanted and not declared.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"{path} holds no tokenizer.json; save the tokenizer in the fast format first.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as e:  # the library raises bare Exception
        raise BadInput(f"{file} is not a tokenizer ({e}).") from None
    config: dict[str, Any] = {}
    for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json"):
        if (file.parent / name).is_file():
            config |= read_json(file.parent / name)
    eos, bos = _special(tokenizer, config, "eos"), _special(tokenizer, config, "bos")
    if eos is None:
        raise BadInput(f"{file.parent} names no end-of-sequence token; set eos_token in tokenizer_config.json.")
    if add_bos is None:
        declared = config.get("add_bos_token")
        ids = tokenizer.encode("a").ids
        add_bos = bool(declared) if declared is not None else bool(ids) and ids[0] == bos
    if add_bos and bos is None:
        raise BadInput(f"{file.parent} names no beginning-of-sequence token; set bos_token in tokenizer_config.json.")
    return TokenizerFacts(file, eos, bos if add_bos else None, tokenizer.get_vocab_size(with_added_tokens=True))


def _special(tokenizer: "Tokenizer", config: Mapping[str, Any], name: str) -> int | None:
    token = config.get(f"{name}_token")
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str) and (number := tokenizer.token_to_id(token)) is not None:
        return int(number)
    number = config.get(f"{name}_token_id")
    if isinstance(number, list):
        number = number[0] if number else None
    return number if isinstance(number, int) else None


@dataclass(frozen=True)
class TokenizedCorpus:
    """All examples' tokens, one after the other, BOS and EOS included.

    ids, trained: (tokens,); trained is 1 on tokens of trained turns and the EOS after them. offsets: (examples + 1,).
    sources, languages: (examples,), indexes into the names. plain: (examples,), whether every turn is trained.
    """

    ids: NDArray[np.uint32]
    trained: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    example_names: list[str]
    sources: NDArray[np.int64]
    source_names: list[str]
    languages: NDArray[np.int64]
    language_names: list[str]
    plain: NDArray[np.bool_]
    utf8_bytes: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example: (examples,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class _Part:
    ids: NDArray[np.uint32]
    trained: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    plain: NDArray[np.bool_]


def _load(file: Path, in_worker: bool) -> "Tokenizer":
    if in_worker:  # processes beat the tokenizer's own threads, and both together fight for the cores
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A document that spells `</s>` must not end the example: special tokens in text are text.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _tokenize(tokenizer: "Tokenizer", turns: list[list[dict[str, Any]]], *, eos_id: int, bos_id: int | None) -> _Part:
    """EOS, trained, follows a trained turn where an untrained one or the end comes next; BOS is untrained."""
    encodings = tokenizer.encode_batch_fast([t["text"] for example in turns for t in example], add_special_tokens=False)
    pieces: list[list[int]] = []
    flags: list[int] = []
    lengths, k = [], 0
    for example in turns:
        length = 0
        if bos_id is not None:
            pieces.append([bos_id])
            flags.append(0)
            length += 1
        for i, turn in enumerate(example):
            ids = encodings[k].ids
            k += 1
            if turn["train"] and (i + 1 == len(example) or not example[i + 1]["train"]):
                ids = [*ids, eos_id]
            pieces.append(ids)
            flags.append(int(turn["train"]))
            length += len(ids)
        lengths.append(length)
    counts = np.array([len(p) for p in pieces], np.int64)
    flat = np.fromiter((i for p in pieces for i in p), np.uint32, int(counts.sum()))
    plain = np.array([all(t["train"] for t in example) for example in turns], np.bool_)
    return _Part(flat, np.repeat(np.array(flags, np.uint8), counts), np.array(lengths, np.int64), plain)


def _tokenize_json(tokenizer: "Tokenizer", task: str, *, eos_id: int, bos_id: int | None) -> _Part:
    return _tokenize(tokenizer, json.loads(task), eos_id=eos_id, bos_id=bos_id)


def tokenize_corpus(
    cleaned: Path, facts: TokenizerFacts, workers: int = 1, progress: Progress = SILENT
) -> TokenizedCorpus:
    """Tokenise the kept examples of a cleaned corpus. Holds all tokens in memory: 5 bytes each.

    Raises BadInput where the folder is no cleaned corpus.
    """
    names, source_column, language_column, sizes = [], [], [], list[int]()
    for batch in part_batches(cleaned, "examples", ("id", "source", "language", "utf8_bytes"), 65_536):
        rows = batch.to_pydict()
        names += rows["id"]
        source_column += rows["source"]
        language_column += rows["language"]
        sizes += rows["utf8_bytes"]
    # json: smaller and quicker to hand to a process than nested Python objects.
    tasks = (
        json.dumps(batch["turns"].to_pylist(), ensure_ascii=False)
        for batch in part_batches(cleaned, "examples", ("turns",), BATCH_EXAMPLES)
    )
    function = partial(_tokenize_json, eos_id=facts.eos_id, bos_id=facts.bos_id)
    parts: list[_Part] = []
    with progress.task("tokenise", len(names), "examples") as task:
        for part in ordered_map(function, tasks, partial(_load, facts.file, workers > 1), workers):
            parts.append(part)
            task.advance(len(part.lengths))
    lengths = np.concatenate([p.lengths for p in parts]) if parts else np.zeros(0, np.int64)
    source_names, language_names = list(dict.fromkeys(source_column)), sorted(set(language_column))
    return TokenizedCorpus(
        np.concatenate([p.ids for p in parts]) if parts else np.zeros(0, np.uint32),
        np.concatenate([p.trained for p in parts]) if parts else np.zeros(0, np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        names,
        _numbers(source_column, source_names),
        source_names,
        _numbers(language_column, language_names),
        language_names,
        np.concatenate([p.plain for p in parts]) if parts else np.zeros(0, np.bool_),
        np.array(sizes, np.int64),
    )


def _numbers(column: list[str], names: list[str]) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[value] for value in column], np.int64)

"""Tokenising: the same tokens however many texts go at once, framed as the tokenizer declares."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pandallm.data import tokenize
from pandallm.data.tokenize import load_tokenizer, tokenize_turns, tokenizer_facts
from tests.data.test_pack import BOS, EOS, byte_tokenizer


def turns(*examples: list[tuple[str, bool]]) -> "pa.ListArray[Any]":
    kind = pa.list_(pa.struct([("text", pa.string()), ("train", pa.bool_())]))
    return pa.array([[{"text": t, "train": f} for t, f in example] for example in examples], kind)


@pytest.mark.parametrize("texts", [1, 2, 256])
@pytest.mark.parametrize("bos", [False, True])
def test_frames_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: int, bos: bool) -> None:
    monkeypatch.setattr(tokenize, "CALL_TEXTS", texts)
    facts = tokenizer_facts(byte_tokenizer(tmp_path), add_bos=bos)
    examples = turns(
        [("ab", True)],
        [("q", False), ("a", True), ("b", True), ("q", False), ("", True)],
        [("only asked", False)],
    )
    # A slice of a larger column must not see its neighbours.
    column = pa.concat_arrays([turns([("xx", True)]), examples, turns([("yy", False)])]).slice(1, 3)
    batch = tokenize_turns(load_tokenizer(tmp_path), column, facts)
    ends = [i for i, token in enumerate(batch.ids.tolist()) if token == EOS]
    start = int(bos)
    assert batch.examples["tokens"].tolist() == [3 + start, 6 + start, 10 + start]
    assert batch.examples["runs"].tolist() == [1 + start, 5 + start, 1 + start]
    assert batch.examples["plain"].tolist() == [True, False, False]
    trained = np.repeat(batch.runs["trained"], batch.runs["tokens"]).tolist()
    front = [False] * start
    assert trained == [*front, *[True] * 3, *front, False, True, True, True, False, True, *front, *[False] * 10]
    assert ends == [2 + start, 3 + start + 3 + start, 3 + start + 5 + start]
    assert (batch.ids == BOS).sum() == 3 * start


def test_ids_beyond_sixteen_bits(tmp_path: Path) -> None:
    facts = tokenizer_facts(byte_tokenizer(tmp_path))
    assert facts.vocabulary == 258
    assert facts.typecode == "H"
    large = tokenize.TokenizerFacts(facts.file, EOS, None, (1 << 16) + 1)
    assert np.dtype(large.typecode) == np.uint32

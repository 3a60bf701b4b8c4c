import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from pandallm.errors import BadInput
from pandallm.evaluate.bits import Document, document_tokens, read_held_out, score_documents, windows


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32
    ).eval(), AutoTokenizer.from_pretrained(model_folder)


DOCUMENTS = [
    Document("a", "wiki", "zh", (("小明住在湖边的城里，他养了一只猫。" * 3, True),)),
    Document("b", "qa", "zh", (("问题：小明住在哪里？", False), ("湖边", True))),
    Document("c", "web", "en", (("The answer is: the lake. " * 30, True),)),
]


def test_bits_equal_the_log_probability_of_the_whole_text(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    found = {i: v for batch in score_documents(model, tokenizer, DOCUMENTS[:2], 128, 300) for i, v in batch}
    for i, document in enumerate(DOCUMENTS[:2]):
        tokens, trained = document_tokens(tokenizer, document)
        assert tokens[0] == tokenizer.eos_token_id  # no BOS here: what precedes a document is EOS
        with torch.inference_mode():
            logp = torch.log_softmax(model(torch.tensor([tokens])).logits[0], -1)
        nats = -sum(float(logp[t - 1, tokens[t]]) for t in range(1, len(tokens)) if trained[t])
        assert found[i][0] == pytest.approx(nats / math.log(2), rel=1e-5)
        assert found[i][1] == sum(trained)
    assert DOCUMENTS[1].bytes == len("湖边".encode())


def test_batches_and_resume_do_not_change_bits(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    one = {i: v for batch in score_documents(model, tokenizer, DOCUMENTS, 40, 1) for i, v in batch}
    two = {i: v for batch in score_documents(model, tokenizer, DOCUMENTS, 40, 4000) for i, v in batch}
    assert one == {i: (pytest.approx(bits, rel=1e-5), n) for i, (bits, n) in two.items()}
    left = [i for b in score_documents(model, tokenizer, DOCUMENTS, 40, 1, lambda i: i == 0) for i, _ in b]
    assert left == [1, 2]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_windows_score_every_trained_token_once_with_half_a_window_before_it(trained: list[bool], length: int) -> None:
    tokens = list(range(len(trained) + 1))
    seen = []
    for w in windows(0, tokens, [False, *trained], length):
        assert len(w.tokens) <= length + 1
        for i, scored in enumerate(w.scored):
            if scored:
                seen.append(w.tokens[i + 1])
                assert i + 1 >= min(w.tokens[i + 1], max(1, length // 2))
    assert seen == [t for t in tokens[1:] if trained[t - 1]]


def test_held_out_file(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "source": "s", "language": "zh", "turns": [{"text": "湖", "train": True}], "utf8_bytes": 3},
        {"id": "2", "source": "s", "language": "zh", "turns": [{"text": "湖", "train": False}], "utf8_bytes": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "held_out.parquet")
    assert read_held_out(tmp_path) == [Document("1", "s", "zh", (("湖", True),))]
    with pytest.raises(BadInput, match="is no cleaned corpus"):
        read_held_out(tmp_path / "no")

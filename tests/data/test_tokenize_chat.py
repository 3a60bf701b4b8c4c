"""Dialogues of a corpus under a chat template: roles, masks, documents beside them, packs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandallm.data.chat import ChatEncoder, open_template
from pandallm.data.packs import Packs, decode_row
from pandallm.data.tokenize import load_tokenizer, tokenize_turns, tokenizer_facts
from pandallm.data.tokenize_chat import messages_of, tokenize_dialogues
from pandallm.errors import BadInput
from tests.data.small_tokenizers import byte_level, sentencepiece
from tests.data.test_chat import TOKENS
from tests.data.test_tokenize import turns


def said(*texts: tuple[str, bool]) -> list[dict[str, Any]]:
    return [{"text": text, "train": train} for text, train in texts]


def test_turns_are_messages() -> None:
    question, answer = ("q\n", False), ("a", True)
    assert [(m["role"], m["content"]) for m in messages_of(said(question, answer, question, answer))] == [
        ("user", "q"),
        ("assistant", "a"),
        ("user", "q"),
        ("assistant", "a"),
    ]
    with_system = messages_of(said(("s\n", False), ("q\n\n", False), answer))
    assert with_system[:2] == [{"role": "system", "content": "s"}, {"role": "user", "content": "q\n"}]
    three = messages_of(said(("s", False), ("p\n", False), question, ("a", True), ("b", True)))
    assert [(m["role"], m["content"]) for m in three] == [("system", "s"), ("user", "p\nq"), ("assistant", "ab")]
    for wrong in (said(answer, question), said(question), said(question, answer, question), said(question, question)):
        with pytest.raises(BadInput, match="do not alternate"):
            messages_of(wrong)


@pytest.mark.parametrize("bos", [False, True])
def test_masks_and_documents(tmp_path: Path, bos: bool) -> None:
    folder = sentencepiece(tmp_path, extra=TOKENS)
    facts = tokenizer_facts(folder, add_bos=bos)
    template = open_template("chatml", folder)
    column = turns(
        [("The cat sat.", True)],
        [("How?\n", False), ("So.", True), ("And?\n", False), ("No.", True)],
        [("The mat.", True), (" The dog.", True)],
    ).slice(0, 3)
    encoder = ChatEncoder(load_tokenizer(folder), template)
    batch = tokenize_dialogues(encoder, ["a", "b", "c"], column, facts)
    plain = tokenize_turns(load_tokenizer(folder), column, facts)
    ends = np.cumsum(batch.examples["tokens"])
    plain_ends = np.cumsum(plain.examples["tokens"])
    assert batch.examples["plain"].tolist() == [True, False, True]
    assert batch.examples["runs"].sum() == len(batch.runs)
    assert batch.ids[: ends[0]].tolist() == plain.ids[: plain_ends[0]].tolist()
    assert batch.ids[ends[1] :].tolist() == plain.ids[plain_ends[1] :].tolist()
    trained = np.repeat(batch.runs["trained"], batch.runs["tokens"])
    assert len(trained) == len(batch.ids)
    learnt = batch.ids[ends[0] : ends[1]][trained[ends[0] : ends[1]]].tolist()
    assert encoder.tokenizer.decode(learnt, skip_special_tokens=False).replace(" ", "") == "So.<|im_end|>No.<|im_end|>"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = byte_level(tmp_path, extra=TOKENS)
    encoder = ChatEncoder(load_tokenizer(folder), open_template("llama2", folder))
    column = turns([("q", False), ("a", True)], [("q", False)])
    with pytest.raises(
        BadInput, match=r"Example two cannot be written with chat template llama2: its turns .*--id two"
    ):
        tokenize_dialogues(encoder, ["one", "two"], column, tokenizer_facts(folder))


def test_untrained_neighbours_are_one_turn_without_a_template(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    facts, tokenizer = tokenizer_facts(folder), load_tokenizer(folder)
    apart = turns([("a", True)], [("The ", False), ("cat\n", False), ("sat", True)], [("x\n", False), ("y", True)])
    joined = turns([("a", True)], [("The cat\n", False), ("sat", True)], [("x\n", False), ("y", True)])
    one, other = tokenize_turns(tokenizer, apart, facts), tokenize_turns(tokenizer, joined, facts)
    assert one.ids.tolist() == other.ids.tolist()
    assert one.runs.tolist() == other.runs.tolist()
    assert one.examples.tolist() == other.examples.tolist()
    # The end of one example and the beginning of the next are no neighbours.
    ends = turns([("asked\n", False)], [("x\n", False), ("y", True)])
    assert tokenize_turns(tokenizer, ends, facts).examples["runs"].tolist() == [1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_packs_say_which_template_they_were_written_with(tmp_path: Path, workers: int) -> None:
    from pandallm.data.pack import pack_corpus
    from tests.data.test_pack import corpus

    folder = byte_level(tmp_path / "tokenizer", extra=TOKENS)
    said = [
        {"instruction": "How?", "input": "", "output": "So."},
        {"instruction": "And?", "input": "", "output": "No."},
    ]
    texts = [{"id": "1", "url": "", "title": "", "text": "The cat sat on the mat."}]
    cleaned, sources = corpus(tmp_path / "corpus", talk=("alpaca", said), wiki=("wiki", texts))
    settings: dict[str, Any] = {"packing": "best_fit", "sources": sources, "sequence_length": 64, "batch_sequences": 1}
    made = pack_corpus(
        cleaned,
        folder,
        tmp_path / "packs",
        **settings,
        epochs=1,
        seed=1,
        workers=workers,
        chat=open_template("chatml", folder),
    )
    end = load_tokenizer(folder).token_to_id("<|im_end|>")
    assert made["chat_template"] == {"name": "chatml", "end_of_turn": "<|im_end|>", "end_of_turn_id": end}
    assert made["warnings"] == []
    assert "<|im_start|>" in (tmp_path / "packs" / "chat_template.jinja").read_text()
    packs = Packs.open(tmp_path / "packs")
    pieces = [p for row in range(packs.rows) for p in decode_row(packs, row, load_tokenizer(folder))]
    assert any(
        p.spans == (("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n", False), ("So.<|im_end|>", True))
        for p in pieces
    )
    assert "The cat sat on the mat.<eos>" in {"".join(text for text, _ in p.spans) for p in pieces}
    without = pack_corpus(cleaned, folder, tmp_path / "without", **settings, epochs=1, seed=1)
    assert "chat_template" not in without
    assert not (tmp_path / "without" / "chat_template.jinja").exists()

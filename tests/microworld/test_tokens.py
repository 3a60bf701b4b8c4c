"""The evaluation reads the very tokens that instruction tuning taught, to the last line break."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pandallm.data.adapters import coig
from pandallm.data.adapters.base import Adapted
from pandallm.data.spec import VocabularySpec
from pandallm.data.vocabulary import train_tokenizer
from pandallm.evaluate.encode import encode_questions
from pandallm.evaluate.prompts import render
from pandallm.microworld.corpora import corpora
from pandallm.microworld.spec import WorldSpec
from pandallm.microworld.world import World
from pandallm.tasks.load import load_task
from pandallm.tasks.types import Question

SPEC = WorldSpec(split="dev", english_documents=50, wiki_pages=100, news_articles=50, translations=50, instructions=300)


def test_prompts_are_tokenised_alike_in_training_and_evaluation(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    exams = corpora(World(SPEC, 1), SPEC, 1)["instructions/coig/exam.jsonl"]
    adapted = [coig.ADAPTER.adapt(record, {}) for record in exams]
    rows = [{"turns": [{"text": t.text, "train": t.train} for t in a.turns]} for a in adapted if isinstance(a, Adapted)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "examples.parquet")
    train_tokenizer(VocabularySpec(size=700, split="han_characters"), [tmp_path], tmp_path / "tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer" / "tokenizer.json"), eos_token="<|endoftext|>"
    )

    task = load_task("microworld-facts")
    asked = Question("1", task.name, "1", "", "林娃住在哪里？", ("青港", "白川", "云州", "石湾"), 0)
    for name in ("listed", "alone"):
        context, options = render(task.prompts[name], asked)
        (encoded,) = encode_questions(tokenizer, [(context, options)], 256)
        for option, request in zip(options, encoded.requests, strict=True):
            taught = tokenizer(context)["input_ids"] + tokenizer(option)["input_ids"]  # turn by turn
            assert list(request.tokens) == taught
            assert tokenizer.decode(taught) == context + option

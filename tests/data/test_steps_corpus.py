"""What steps tell about records reaches the cleaned corpus: languages, qualities, counts of what was masked."""

import json
from pathlib import Path

import pytest

from pandallm.data.clean import audit_ledger, clean_corpus
from pandallm.data.clean_spec import GopherQualityStep, LanguageStep, NormalizeStep, PiiStep, ScoreStep
from pandallm.data.corpus import part_batches
from pandallm.data.spec import CorpusSpec, SourceSpec
from pandallm.data.steps.score import heuristic

TEXTS = [
    "联系人的电话是13800001234，也可以写信到someone@example.com，我们会在一天之内回复。",
    "The weather was fine and all of us went to the park, write to someone@example.com.",
    "今天的天气很好，我们一起去公园里散步，路边的花都开了。",
    "今天的天气很好，我们一起去公园里散步，路边的花都开了，13800001234 # # # # # # # # #",
]


def test_steps_reach_the_corpus(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), "utf-8")
    steps = (NormalizeStep(), LanguageStep(write=True), PiiStep(), ScoreStep(), GopherQualityStep(min_words=None))
    spec = CorpusSpec(sources={"s": SourceSpec(adapter="text", files="-")}, clean=steps)
    facts = clean_corpus("c", spec, {"s": [source]}, tmp_path / "out")
    rows = [row for batch in part_batches(tmp_path / "out", "examples") for row in batch.to_pylist()]
    assert [row["language"] for row in rows] == ["zh", "en", "zh"]
    texts = [row["turns"][0]["text"] for row in rows]
    assert texts[0] == "联系人的电话是<phone>，也可以写信到<mail>，我们会在一天之内回复。"
    assert [row["quality"] for row in rows] == pytest.approx([heuristic(t) for t in texts])
    # Only what passed the steps is counted.
    assert facts["sources"]["s"]["masked"] == facts["total"]["masked"] == {"mail": 2, "phone": 1}
    assert facts["sources"]["s"]["dropped"] == {
        "gopher_symbols": {"records": 1, "bytes": len(json.dumps({"text": TEXTS[3]}))}
    }
    assert audit_ledger(tmp_path / "out") == facts

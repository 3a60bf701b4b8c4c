"""A small invented run folder, written by hand; every name may be made hostile."""

import random
from pathlib import Path
from typing import Any

from pandallm.store import write_json, write_jsonl, write_text

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;\u2028{{ 7*7 }}"
MODELS = ("base", "pretrain", "instruct")


def score(accuracy: float, n: int = 96, clusters: int = 48, half: float = 0.06) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "low": max(0.0, accuracy - half),
        "high": min(1.0, accuracy + half),
        "n": n,
        "clusters": clusters,
    }


def table_row(model: str, task: str, prompt: str, accuracy: float, **more: Any) -> dict[str, Any]:
    row = {
        "model": model,
        "task": task,
        "title": f"Facts of {task}",
        "group": "asked",
        "prompt": prompt,
        "method": "likelihood",
        **score(accuracy),
    }
    return row | {"chance": 0.25, "constant": 0.27, "unparsed": None, "near_chance": ""} | more


def example_scores() -> dict[str, Any]:
    by_model = {"base": 0.26, "pretrain": 0.62, "instruct": 0.84}
    table = []
    for prompt, shift in (("listed", 0.1), ("question", -0.02)):
        for model, accuracy in by_model.items():
            table.append(table_row(model, "facts-zh", prompt, accuracy - (shift if model == "pretrain" else 0)))
    for model in by_model:
        table.append(table_row(model, "facts-zh", "listed", 0.25, method="generation", unparsed=0.125))
        table.append(
            table_row(model, "facts-zh", "listed", 0.24, group="never_seen", near_chance="Nobody told the model.")
        )
        table.append(
            table_row(model, "rules-zh", "question", 0.27, near_chance="Rules need more steps than this model has.")
        )
    bits = {"en": (1.1, 1.4, 1.45), "zh": (5.2, 2.1, 2.3)}
    return {
        "confidence": 0.95,
        "models": list(MODELS),
        "headline": {m: score(a) for m, a in by_model.items()} | {"controls": {"never_seen": score(0.24)}},
        "headline_definition": {"tasks": ["facts-zh"], "prompts": "all", "group": "asked", "method": "likelihood"},
        "table": table,
        "differences": [
            {
                "a": "base",
                "b": "pretrain",
                "what": "headline",
                "difference": 0.36,
                "low": 0.27,
                "high": 0.45,
                "p": 0.0002,
            },
            {
                "a": "pretrain",
                "b": "instruct",
                "what": "headline",
                "difference": 0.22,
                "low": -0.01,
                "high": 0.45,
                "p": 0.061,
            },
        ],
        "prompts": [
            {"model": m, "task": "facts-zh", "group": "asked", "method": "likelihood", "shots": 0, "chat": False}
            | {"prompts": 2, "accuracy": a, "low": a - 0.1, "high": a + 0.1, "se_sampling": 0.03, "spread": 0.084}
            | {"min": a - 0.06, "max": a + 0.06}
            for m, a in by_model.items()
        ],
        "bits_per_byte": [
            {"model": m, "corpus": f"held_{lang}", "source": s, "language": lang, "documents": 20, "bytes": 4100}
            | {"bits_per_byte": b, "low": b - 0.1, "high": b + 0.1}
            for lang, values in bits.items()
            for s in (f"wiki_{lang}", f"news_{lang}")
            for m, b in zip(MODELS, values)
        ],
        "bits_per_byte_changes": [
            {"a": a, "b": b, "language": lang, "change": c, "low": c - 0.05, "high": c + 0.05}
            for lang, a, b, c in (
                ("en", "base", "pretrain", 0.27),
                ("en", "base", "instruct", 0.32),
                ("zh", "base", "pretrain", -0.6),
                ("zh", "base", "instruct", -0.56),
            )
        ],
    }


def write_example_run(folder: Path, hostile: str = "", questions: int = 30, steps: int = 60) -> Path:
    """Write the run folder; `hostile` is put into every name and text that comes from data or models."""
    rng = random.Random(1)
    scores = example_scores()
    sources = [f"wiki{hostile}", "news", "问答", "translation"]
    if hostile:
        scores["table"][0]["near_chance"] = hostile
        for row in scores["table"]:
            row["title"] += hostile
            row["prompt"] += hostile
    write_json(folder / "scores.json", scores)
    stage = {
        "kind": "train",
        "key": "a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "digest": "0f" * 32,
        "reused": False,
        "seconds": 12.5,
    }
    write_json(
        folder / "manifest.json",
        {
            "name": "example",
            "seed": 1,
            "pandallm": "0.1.0",
            "versions": {"torch": "2.13.0", "note": hostile},
            "machine": {"cpu": "Test CPU", "threads": 2, "gpus": [hostile]},
            "command": f"panda run example.yaml {hostile}",
            "started": "2026-01-02T03:04:05Z",
            "seconds": 301.2,
            "stages": [
                {**stage, "name": "clean chinese", "kind": "clean", "facts": {"kept": 900}},
                {**stage, "name": "train pretrain", "facts": {"steps": steps, "note": hostile}},
                {**stage, "name": "train instruct", "reused": True, "facts": {}},
            ],
        },
    )
    write_text(
        folder / "recipe.yaml",
        "name: example\nworld: {split: test}\nevaluate:\n  controls:\n    never_seen: {tasks: [facts-zh], group: never_seen}\n# "
        + hostile.replace("\u2028", " ")
        + "\n",
    )
    for name in ("pretrain", "instruct"):
        lines = []
        for step in range(1, steps + 1):
            by_source = {s: 5 * step**-0.3 + 0.3 * i + rng.uniform(-0.1, 0.1) for i, s in enumerate(sources)}
            lines.append(
                {
                    "step": step,
                    "steps": steps,
                    "loss": sum(by_source.values()) / 4,
                    "lr": 1e-3,
                    "trained_tokens": 480,
                    "loss_by_source": by_source,
                }
            )
        write_jsonl(folder / "metrics" / f"{name}.jsonl", lines)
    part = {"records": 10, "bytes": 1000}
    entry = {
        "records": 300,
        "bytes": 30000,
        "kept": {"records": 240, "bytes": 24000},
        "held_out": part,
        "quarantined": part,
    }
    entry["dropped"] = {"duplicate": {"records": 20, "bytes": 2000}, "contaminated": part, f"too short{hostile}": part}
    write_json(folder / "ledgers" / "chinese.json", {"sources": dict.fromkeys(sources, entry)})
    tokens = {
        "unique": 9000,
        "trained": 6000,
        "masked": 2500,
        "truncated": 300,
        "over_budget": 200,
        "exposures": 17000,
        "passes": 2.0,
        "share": 0.25,
        "wanted_share": 0.3,
    }
    for name in ("pretrain", "instruct"):
        ledger = {
            "sources": dict.fromkeys(sources, tokens),
            "total": {k: 4 * v if k != "passes" else v for k, v in tokens.items() if "share" not in k},
        }
        write_json(folder / "ledgers" / f"pack-{name}.json", {"sources": sources, "rows": 3, "ledger": ledger})
    document = {"id": f"doc-1{hostile}", "source": sources[0], "grams": 3, "share": 0.4, "fate": "kept"}
    touched = [{"question": f"facts-zh/0{hostile}", "share": 0.4, "documents": [document], "documents_total": 2}]
    write_json(
        folder / "contamination" / "chinese.json",
        {
            "ngram_chars": 13,
            "action": "report",
            "tasks": {
                "facts-zh": {
                    "questions": 400,
                    "touched": 7,
                    "documents": 5,
                    "by_question": touched,
                    "exclude": ["facts-zh/0", "facts-zh/1"],
                }
            },
        },
    )
    write_json(
        folder / "delta.json",
        {
            "base": "base",
            "target": "instruct",
            "bytes": 1_200_000,
            "target_bytes": 3_400_000,
            "ratio": 0.353,
            "verified": True,
            "tensors": 31,
        },
    )
    people = ["李雷", "王芳", "赵敏", "陈晨"]
    asked = []
    for i in range(questions):
        options = ["面条", "饺子", "米饭", f"汤圆{hostile}"]
        asked.append(
            {
                "id": f"facts-zh/{i}",
                "task": "facts-zh",
                "cluster": f"person-{i // 2}",
                "group": "asked",
                "context": f"第{i % 3}段材料。{hostile}",
            }
            | {"question": f"{people[i % 4]}最喜欢吃什么（{i}）？{hostile}", "options": options, "answer": i % 4}
        )
    write_jsonl(folder / "questions.jsonl", asked)
    rows = []
    for q in asked:
        for model in MODELS:
            for prompt, method in (("listed", "likelihood"), ("question", "likelihood"), ("listed", "generation")):
                choice = rng.randrange(4) if model == "base" else q["answer"]
                if method == "generation" and rng.random() < 0.2:
                    choice = None
                rows.append(
                    {
                        "model": model,
                        "task": q["task"],
                        "prompt": prompt,
                        "method": method,
                        "id": q["id"],
                        "cluster": q["cluster"],
                        "group": "asked",
                    }
                    | {"options": 4, "answer": q["answer"], "choice": choice, "correct": choice == q["answer"]}
                    | {"scores": [-1.5, -2.25, -3.0, -0.125] if method == "likelihood" else None}
                    | {"completion": f"答案大概是这个{hostile}" if method == "generation" else None}
                )
    write_jsonl(folder / "rows.jsonl", rows)
    return folder

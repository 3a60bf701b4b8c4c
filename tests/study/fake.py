"""Study folders with made-up results: the files that a study's runs leave, without the runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pandallm.pipeline.run_folder import write_parquet
from pandallm.store import write_json, write_jsonl, write_text
from pandallm.study.folder import made_by

ACCURACY = {
    "kind": "accuracy",
    "tasks": ["facts"],
    "prompts": "all",
    "group": None,
    "method": "likelihood",
    "model": "last",
}
BITS = {"kind": "bits_per_byte", "corpus": None, "source": None, "language": "zh", "model": "last"}


def fake_study(
    folder: Path,
    right: Callable[[str, int], float],
    bits: Callable[[str, int], float],
    *,
    levels: tuple[str, ...] = ("low", "high"),
    contrasts: dict[str, Any] | None = None,
    seeds: int = 5,
    questions: int = 200,
    name: str = "fake",
    own_questions: bool = True,
    failed: tuple[tuple[str, int], ...] = (),
    claim: str = "more is better",
    question: str = "几个苹果？",
    texts: bool = True,
) -> Path:
    """A study of one factor `dose`; `right(level, seed)` is an arm's accuracy, `bits(level, seed)` its bits per byte of Chinese.

    `question` ends the text of every question; without `texts` the runs keep no questions.jsonl. Training read as many kilobytes as the
    level's place says.
    """
    arms = [
        {
            "name": f"dose-{level}",
            "levels": {"dose": level},
            "digest": level,
            "models": ["base", "tuned"],
            "shots": 0,
            "chat": False,
        }
        for level in levels
    ]
    write_json(
        folder / "study.json",
        {
            "name": name,
            "description": "made up",
            "recipe": "microworld",
            "confidence": 0.95,
            "margin": {"accuracy": 0.02, "bits_per_byte": 0.01},
            "seeds": list(range(1, seeds + 1)),
            "own_questions": own_questions,
            "factors": {"dose": {"kind": "field", "levels": list(levels), "baseline": levels[0]}},
            "metrics": {"facts": ACCURACY, "chinese": BITS},
            "primary": "facts",
            "contrasts": contrasts
            if contrasts is not None
            else {"more": contrast(levels[0], levels[-1], "better", claim=claim)},
            "arms": arms,
        },
    )
    for arm in arms:
        level = str(arm["levels"]["dose"])  # type: ignore[index]
        for seed in range(1, seeds + 1):
            run = folder / "arms" / f"{arm['name']}-seed{seed}"
            state = "failed" if (level, seed) in failed else "complete"
            error = "it broke" if state == "failed" else None
            write_json(
                run / "outcome.json",
                {"state": state, "error": error, "seconds": 1.0, "digest": level, "made_by": made_by()},
            )
            if state == "failed":
                continue
            write_json(run / "scores.json", {})
            write_json(
                run / "manifest.json",
                {
                    "pandallm": "0",
                    "versions": {"torch": "9", "transformers": "9"},
                    "machine": {"processor": "abacus", "cores": 2},
                    "work_seconds": 60.0,
                    "stages": [
                        {"name": "clean chinese", "kind": "clean", "key": "shared", "made_in_seconds": 30.0},
                        {
                            "name": "train tuned",
                            "kind": "train",
                            "key": f"{level}{seed}",
                            "made_in_seconds": 30.0,
                            "facts": {
                                "steps": 10,
                                "tokens": 1000,
                                "trained_tokens": 900,
                                "predicted": {"tokens": 2000, "flops": 6.0e9},
                            },
                        },
                    ],
                },
            )
            write_text(run / "recipe.yaml", "stages: {tuned: {corpus: chinese}}\n")
            write_ledgers(run, 1 + levels.index(level))
            # Each seed's answers are drawn once and thresholded, so that arms of one seed are paired.
            draws = np.random.default_rng([7, seed if own_questions else 0]).random(questions)
            rows = [
                {
                    "model": model,
                    "task": "facts",
                    "prompt": "plain",
                    "method": "likelihood",
                    "shots": 0,
                    "chat": False,
                    "order": 0,
                    "id": f"q{i}",
                    "cluster": f"c{i // 2}",
                    "group": "",
                    "options": 4,
                    "answer": i % 4,
                    "choice": i % 4 if correct else (i + 1) % 4,
                    "correct": correct,
                }
                for model in ("base", "tuned")
                for i in range(questions)
                for correct in [bool(draws[i] < (right(level, seed) if model == "tuned" else 0.25))]
            ]
            write_parquet(run / "rows.parquet", rows)
            write_jsonl(run / "rows.jsonl", rows)
            if texts:
                write_jsonl(
                    run / "questions.jsonl",
                    [
                        {
                            "task": "facts",
                            "id": f"q{i}",
                            "cluster": f"c{i // 2}",
                            "context": "",
                            "question": f"世界{seed if own_questions else 0}第{i}问：{question}",
                            "options": [f"{i + k}个" for k in range(4)],
                            "answer": i % 4,
                            "group": "",
                        }
                        for i in range(questions)
                    ],
                )
            write_jsonl(
                run / "bits_per_byte.jsonl",
                [
                    {
                        "model": model,
                        "corpus": "chinese",
                        "source": "wiki",
                        "language": language,
                        "id": f"d{i}",
                        "bits": 100 * (bits(level, seed) if model == "tuned" and language == "zh" else 2.0),
                        "bytes": 100,
                        "tokens": 50,
                    }
                    for model in ("base", "tuned")
                    for language in ("zh", "en")
                    for i in range(4)
                ],
            )
    return folder


def write_ledgers(run: Path, share: int) -> None:
    """A corpus of two sources, of which training reads the second `share` times."""
    part = {"records": 10, "bytes": 1000}
    entry = {"records": 30, "bytes": 3000, "kept": part, "held_out": part, "quarantined": {"records": 0, "bytes": 0}}
    entry["dropped"] = {"duplicate": part}
    write_json(run / "ledgers" / "chinese.json", {"sources": {"wiki": entry, "news": entry}})
    sources = {
        "wiki": {"unique": 500, "exposures": 500, "trained_exposures": 450, "passes": 1.0, "share": 1 / (1 + share)},
        "news": {"unique": 500, "exposures": 500 * share, "trained_exposures": 450 * share, "passes": float(share)},
    }
    sources["news"] |= {"share": share / (1 + share), "wanted_share": 0.5}
    total = {"exposures": 500 * (1 + share), "passes": (1 + share) / 2}
    write_json(run / "ledgers" / "pack-tuned.json", {"ledger": {"sources": sources, "total": total}})


def contrast(
    a: str, b: str, expect: str, metric: str | None = None, claim: str = "", margin: float | None = None
) -> dict[str, Any]:
    """A contrast of the factor `dose`."""
    return {"claim": claim, "factor": "dose", "a": a, "b": b, "expect": expect, "metric": metric, "margin": margin}

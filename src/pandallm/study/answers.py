"""The questions of one seed with each arm's answers, for the study's page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pandallm.store import read_json, read_jsonl
from pandallm.study.folder import STUDY

Json = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class SeedAnswers:
    """Rows of the last model of every arm that has finished this seed, the arm's name in the place of the model's.

    `different`: how many questions are left out because two arms ask something else under the same name.
    """

    models: list[str]
    rows: list[Json]
    questions: dict[Key, Json]
    different: int


def answers_by_seed(folder: Path, results: Mapping[str, Any]) -> dict[int, Callable[[], SeedAnswers]]:
    """Seed -> what reads its answers, of each seed that an arm has finished, in the order of the seeds.

    results: of `compute_results` of the same folder.
    """
    models = {arm["name"]: arm["models"][-1] for arm in read_json(folder / STUDY)["arms"]}
    done: dict[int, dict[str, str]] = {}
    for seed in results["seeds"]:
        for arm in results["arms"]:
            if any(run["seed"] == seed and run["state"] == "complete" for run in arm["runs"]):
                done.setdefault(seed, {})[arm["name"]] = models[arm["name"]]
    return {seed: partial(_read, folder, seed, arms) for seed, arms in done.items()}


def run_reports(folder: Path, results: Mapping[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """Arm -> (seed, link relative to the study's folder) of each run that has a report of its own."""
    return {
        arm["name"]: [
            (run["seed"], quote(f"arms/{arm['name']}-seed{run['seed']}/report.html"))
            for run in arm["runs"]
            if (folder / "arms" / f"{arm['name']}-seed{run['seed']}" / "report.html").is_file()
        ]
        for arm in results["arms"]
    }


def _read(folder: Path, seed: int, arms: Mapping[str, str]) -> SeedAnswers:
    rows: list[Json] = []
    questions: dict[Key, Json] = {}
    asked: dict[Key, tuple[Any, ...]] = {}
    different: set[Key] = set()

    def same(key: Key, *what: Any) -> None:
        if asked.setdefault(key, what) != what:
            different.add(key)

    for arm, model in arms.items():
        run = folder / "arms" / f"{arm}-seed{seed}"
        texts = {}
        if (run / "questions.jsonl").is_file():
            texts = {(str(q["task"]), str(q["id"])): q for q in read_jsonl(run / "questions.jsonl")}
        seen: set[Key] = set()
        for row in read_jsonl(run / "rows.jsonl") if (run / "rows.jsonl").is_file() else ():
            if row["model"] != model:
                continue
            rows.append(row | {"model": arm})
            key = (str(row["task"]), str(row["id"]))
            if key not in seen:
                seen.add(key)
                text = texts.get(key, {})
                same(key, row["options"], row["answer"], text.get("context"), text.get("question"), text.get("options"))
                if text:
                    questions.setdefault(key, text)
    kept = [row for row in rows if (str(row["task"]), str(row["id"])) not in different]
    return SeedAnswers(list(arms), kept, questions, len(different))

"""How large a run's report is and how soon it opens: 10,000 invented questions of some 100 Chinese letters, two models, two ways of asking.

Writes invented run folders, their report.html and the page of two runs, and opens each in headless Chromium (packages chromium and
chromium-driver) with a fresh cache. A page is open when its questions are unpacked and listed. Goals: below 3 MB, open within 2 s.
    python benchmarks/report_size.py [--quick] [--json FILE]
"""

import argparse
import math
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import result, write

from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.pipeline.compare_runs import report_runs
from pandallm.pipeline.machine import machine, versions
from pandallm.report.questions import unpack
from pandallm.report.write import write_report
from pandallm.store import write_json, write_jsonl, write_text
from pandallm.tasks.load import load_task
from pandallm.tasks.types import Question

GOALS = {"megabytes": 3.0, "seconds_to_open": 2.0}
MODELS = ("base", "instruct")
TASK = "microworld-facts"
SOURCES = ("wiki", "news", "baike", "webtext", "translation")
REPEATS = 5
#: A page that lists no question has no `#list` and is open once it is loaded.
LISTED = "const list = document.getElementById('list'); return !list || list.querySelectorAll('article').length > 0"


class Words:
    """Invented Chinese: words of one to three letters, drawn as in real text (Zipf 1949), so that it packs as real text does."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        letters = [chr(c) for c in range(0x4E00, 0x4E00 + 2500)]
        self.words = ["".join(self.rng.choices(letters, k=self.rng.choice((1, 2, 2, 3)))) for _ in range(20_000)]
        self.weights = [1 / (k + 2) for k in range(len(self.words))]

    def text(self, words: int) -> str:
        return "".join(self.rng.choices(self.words, self.weights, k=words))


def write_run(folder: Path, questions: int, steps: int, seed: int) -> None:
    """A run folder as `panda run` leaves it, but for models: questions and answers invented, scores computed from them.

    Every run is asked the same; `seed` decides what it answers.
    """
    words, rng = Words(0), random.Random(seed)
    task = load_task(TASK)
    passages = [words.text(40) for _ in range(-(-questions // 3))]
    asked = [
        Question(
            f"facts-{i:05d}", TASK, f"passage-{i // 3}", passages[i // 3], words.text(12) + "？",
            tuple(words.text(3) for _ in range(4)), i % 4, "facts",
        )
        for i in range(questions)
    ]  # fmt: skip
    rows = [
        _row(model, method, q, rng, words) for model in MODELS for method in ("likelihood", "generation") for q in asked
    ]
    bits = [
        {"model": m, "corpus": "chinese", "source": s, "language": "zh", "id": f"{s}-{i}", "bytes": 300, "tokens": 90}
        | {"bits": round(rng.gauss(500, 60), 4)}
        for m in MODELS
        for s in SOURCES
        for i in range(50)
    ]
    spec = EvaluateSpec.model_validate(
        {
            "models": MODELS, "tasks": [TASK], "methods": ["likelihood", "generation"], "bits_per_byte": ["chinese"],
            "headline": {"tasks": [TASK], "prompts": ["listed"]},
        }
    )  # fmt: skip
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "bits_per_byte.jsonl", bits)
    write_jsonl(folder / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for q in asked])
    write_json(folder / "tasks.json", [task.model_dump(mode="json", exclude={"files"})])
    write_json(folder / "scores.json", summarize(rows, bits, asked, [task], spec))
    recipe = {"name": "invented", "seed": seed, "evaluate": spec.model_dump(mode="json")}
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe, allow_unicode=True))
    lines = [
        {"step": k, "steps": steps, "tokens": 4096, "trained_tokens": 4000, "loss": 7 / math.sqrt(k) + 2}
        | {"loss_by_source": {s: 7 / math.sqrt(k) + 2 + rng.gauss(0, 0.1) for s in SOURCES}}
        for k in range(1, steps + 1)
    ]
    stages = [{"name": f"train {s}", "kind": "train", "seconds": 1.0, "facts": {}} for s in ("pretrain", "instruct")]
    for stage in ("pretrain", "instruct"):
        write_jsonl(folder / "metrics" / f"{stage}.jsonl", lines)
    manifest = {"name": "invented", "seed": seed, "pandallm": "0.1.0", "versions": versions(), "machine": machine()}
    write_json(folder / "manifest.json", {**manifest, "work_seconds": 1.0, "stages": stages})


def _row(model: str, method: str, q: Question, rng: random.Random, words: Words) -> dict[str, Any]:
    choice = q.answer if rng.random() < (0.3 if model == "base" else 0.7) else rng.randrange(4)
    likely = method == "likelihood"
    scores = [round(rng.gauss(-9, 3), 4) for _ in range(4)] if likely else None
    if scores:
        choice = max(range(4), key=scores.__getitem__)
    return {
        "model": model, "task": q.task, "prompt": "listed", "method": method, "shots": 0, "chat": False, "order": 0,
        "id": q.id, "cluster": q.cluster, "group": q.group, "options": 4, "answer": q.answer, "choice": choice,
        "correct": choice == q.answer, "scores": scores, "unconditional": None, "choices": None, "near_tie": False,
        "truncated": False, "completion": None if likely else f"{'ABCD'[choice]}。{q.options[choice]}", "choice_2023": choice,
    }  # fmt: skip


def held(page: Path) -> list[dict[str, Any]]:
    """The questions that a report holds."""
    packed = re.search(r'<script type="application/gzip"[^>]*>([^<]+)<', page.read_text(encoding="utf-8"))
    if packed is None:
        sys.exit(f"{page.name} holds no questions")
    questions: list[dict[str, Any]] = unpack(packed.group(1))["questions"]
    return questions


def seconds_to_open(page: Path, folder: Path) -> list[float]:
    """Seconds from the address to the questions, in a browser of its own each time."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.exit("no chromium or no chromedriver: apt-get install chromium chromium-driver")
    taken = []
    for k in range(REPEATS):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags += [f"--user-data-dir={folder / f'chromium-{page.stem}-{k}'}"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
        for flag in flags:
            options.add_argument(flag)
        session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            session.get("about:blank")
            began = time.monotonic()
            session.get(page.resolve().as_uri())
            while not session.execute_script(LISTED):
                if time.monotonic() - began > 60:
                    sys.exit(f"{page.name} lists no question after a minute")
                time.sleep(0.005)
            taken.append(time.monotonic() - began)
        finally:
            session.quit()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 questions")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    questions, steps = (500, 100) if options.quick else (10_000, 2_000)
    figures: dict[str, Any] = {"questions": questions, "models": len(MODELS), "repeats": REPEATS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [folder / "invented-seed1", folder / "invented-seed2"]
        for seed, run in enumerate(runs, 1):
            write_run(run, questions, steps, seed)
        began = time.monotonic()
        report = write_report(runs[0])
        figures["seconds_to_write"] = round(time.monotonic() - began, 2)
        shown = held(report)
        figures["questions_shown"] = len(shown)
        figures["option_scores_shown"] = any("s" in row for q in shown for row in q["rows"])
        several = report_runs(runs, folder / "runs.html")[1]
        for label, page in (("report", report), ("runs", several)):
            taken = seconds_to_open(page, folder)
            figures[label] = {
                "megabytes": round(page.stat().st_size / 1e6, 3),
                "seconds_to_open": round(statistics.median(taken), 3),
                "slowest": round(max(taken), 3),
            }
    met = figures["questions_shown"] == questions and all(
        figures[page][name] < goal for page in ("report", "runs") for name, goal in GOALS.items()
    )
    for key, value in figures.items():
        print(f"{key:20} {value}")
    print("met" if met else "not met")
    write(options.json, result("report_size", figures, GOALS, met, " ".join(["python", *sys.argv])))


if __name__ == "__main__":
    main()

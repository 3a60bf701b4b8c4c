"""Every benchmark script starts and says how it is used; what it keeps of a run holds no text. The measurements are not tests."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(p for p in FOLDER.glob("*.py") if p.stem not in ("common", "peers"))


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_help(script: Path) -> None:
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout


def test_controls_are_judged_jointly_and_stages_by_intervals_that_do_not_overlap() -> None:
    quickstart = load("quickstart")
    near = {"accuracy": 0.306, "low": 0.258, "high": 0.353}  # misses 25 % alone, holds it among nine
    assert quickstart.holds_chance(near, 9)
    assert not quickstart.holds_chance(near, 1)
    assert not quickstart.holds_chance({"accuracy": 0.5, "low": 0.45, "high": 0.55}, 9)
    score = {"base": (0.2, 0.3), "pretrain": (0.5, 0.6), "instruct": (0.7, 0.8)}
    headline = {m: {"low": low, "high": high} for m, (low, high) in score.items()}
    assert quickstart.ordered(headline)
    headline["instruct"]["low"] = 0.59
    assert not quickstart.ordered(headline)


def test_committed_rows_hold_no_text() -> None:
    allowed = {
        "model",
        "task",
        "prompt",
        "method",
        "id",
        "cluster",
        "group",
        "options",
        "answer",
        "choice",
        "correct",
        "scores",
    }
    for path in (FOLDER / "results").glob("*/rows.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert set(row) <= allowed, path
            assert len(row["cluster"]) <= 64, path


@pytest.mark.parametrize("path", sorted((FOLDER / "results").rglob("*.json")), ids=lambda p: p.name)
def test_results_name_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r'"(?:/|[A-Z]:\\\\)[A-Za-z]', text)  # no JSON text starts as an absolute path does

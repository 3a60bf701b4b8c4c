"""Rebuild a study's numbers from the rows of its runs."""

from pathlib import Path
from typing import Any

from pandallm.pipeline.verify import compare, verify_run
from pandallm.store import read_json
from pandallm.study.folder import STUDY
from pandallm.study.results import RESULTS, compute_results


def is_study_folder(folder: Path) -> bool:
    """Whether `panda study run` made this folder."""
    return (folder / STUDY).is_file()


def verify_study(folder: Path) -> dict[str, Any]:
    """Verify every finished run, then compute results.json again and compare. Returns {"runs", "rows", "numbers"}.

    Raises BadInput where the study has no results, PandaError naming the first number that is not what the rows give.
    """
    stored, rebuilt = read_json(folder / RESULTS), compute_results(folder)
    runs = [
        verify_run(folder / "arms" / f"{arm['name']}-seed{run['seed']}")
        for arm in stored["arms"]
        for run in arm["runs"]
        if run["state"] == "complete"
    ]
    numbers = compare(stored, rebuilt, RESULTS)
    return {
        "runs": len(runs),
        "rows": sum(r["rows"] for r in runs),
        "numbers": numbers + sum(r["numbers"] for r in runs),
    }

"""Rebuild the numbers of runs side by side from the run folders that runs.json names."""

from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.compare_runs import NUMBERS, compare_runs, digests, read_runs, settings_of
from pandallm.pipeline.verify import compare, verify_run
from pandallm.store import read_json


def verify_runs(path: Path) -> dict[str, Any]:
    """Verify each run that runs.json names (its scores from its rows), then compare runs.json with what the run folders give now.

    Returns {"rows", "numbers"}. Raises BadInput where the file or a run folder is missing or broken, PandaError where a file of a run has
    changed or a stored number is not what the folders give; names the first.
    """
    stored = read_json(path)
    try:
        settings = stored.pop("settings")
        sources = [(path.parent / s["folder"], str(s["name"]), dict(s["sha256"])) for s in stored.pop("sources")]
    except (KeyError, TypeError, AttributeError, ValueError):
        sources = []
    if len(sources) < 2:
        raise BadInput(f"{path} is not what `panda report` writes of several runs; write it again.")
    for folder, _, known in sources:
        if not folder.is_dir():
            raise BadInput(f"{path} was made from {folder}, which does not exist; keep both where they were.")
        now = digests(folder)
        if changed := [n for n in {**known, **now} if known.get(n) != now.get(n)]:
            raise PandaError(f"{folder / changed[0]} has changed since {path} was made; run `panda report` again.")
    done = [verify_run(folder) for folder, _, _ in sources]
    runs = read_runs([(folder, name) for folder, name, _ in sources])
    rebuilt = {"settings": settings_of(runs).model_dump(mode="json"), **compare_runs(runs)}
    numbers = compare({"settings": settings, **stored}, rebuilt, NUMBERS)
    return {"rows": sum(d["rows"] for d in done), "numbers": numbers + sum(d["numbers"] for d in done)}

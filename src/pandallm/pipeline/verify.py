"""Rebuild a run's numbers from its per-question rows."""

from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.store import read_json, read_jsonl


def verify_run(folder: Path) -> dict[str, Any]:
    """Summarise `rows.jsonl` and `bits_per_byte.jsonl` again and compare with `scores.json`.

    Raises:
        BadInput: `folder` is neither a run folder with scores nor what `panda eval --out` writes.
        PandaError: a stored number is not what the rows give; names the first.
    """
    import yaml

    from pandallm.evaluate.spec import EvaluateSpec
    from pandallm.evaluate.summary import summarize
    from pandallm.tasks.spec import TaskSpec
    from pandallm.tasks.types import Question

    alone = folder / "evaluate.yaml"  # of `panda eval`; a run's settings stand in its recipe
    needed = (
        alone.name if alone.is_file() else "recipe.yaml",
        "rows.jsonl",
        "scores.json",
        "questions.jsonl",
        "tasks.json",
    )
    if missing := [n for n in needed if not (folder / n).is_file()]:
        raise BadInput(
            f"{folder} is not a folder with scores (of `panda run`, or of `panda eval --out`): {missing[0]} is missing."
        )
    settings = yaml.safe_load((folder / needed[0]).read_text(encoding="utf-8"))
    spec = EvaluateSpec.model_validate(settings if needed[0] == alone.name else settings["evaluate"])
    rows = list(read_jsonl(folder / "rows.jsonl"))
    bits = list(read_jsonl(folder / "bits_per_byte.jsonl"))
    questions = [Question(**{**q, "options": tuple(q["options"])}) for q in read_jsonl(folder / "questions.jsonl")]
    tasks = [TaskSpec.model_validate(task) for task in read_json(folder / "tasks.json")]
    for row in rows:
        if row["correct"] != (row["choice"] == row["answer"]):
            raise PandaError(
                f"{folder / 'rows.jsonl'}: question {row['id']} of {row['task']} says correct={row['correct']} against its own choice."
            )
    stored, rebuilt = read_json(folder / "scores.json"), summarize(rows, bits, questions, tasks, spec)
    numbers = compare(stored, rebuilt, "scores.json")
    return {"rows": len(rows), "numbers": numbers}


def compare(stored: Any, rebuilt: Any, where: str) -> int:
    """Count the numbers in two equal JSON values; PandaError names the first place where they differ."""
    if isinstance(stored, dict) and isinstance(rebuilt, dict) and stored.keys() == rebuilt.keys():
        return sum(
            compare(stored[k], rebuilt[k], f"{where}: {k}" if where == "scores.json" else f"{where}.{k}")
            for k in stored
        )
    if isinstance(stored, list | tuple) and isinstance(rebuilt, list | tuple) and len(stored) == len(rebuilt):
        return sum(compare(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(stored, rebuilt, strict=True)))
    if isinstance(stored, float | int) and isinstance(rebuilt, float | int) and abs(stored - rebuilt) <= 1e-9:
        return int(not isinstance(stored, bool))
    if stored == rebuilt:
        return 0
    raise PandaError(f"{where} is {stored}, but the rows give {rebuilt}.")

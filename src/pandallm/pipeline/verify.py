"""Rebuild a run's numbers from its per-question rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.store import read_json, read_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


def verify_run(folder: Path) -> dict[str, Any]:
    """Decide every row again from its scores or completion, summarise the rows again, and compare with `scores.json`.

    Raises:
        BadInput: `folder` is neither a run folder with scores nor what `panda eval --out` writes.
        PandaError: a stored choice or number is not what the rows give; names the first.
    """
    import yaml

    from pandallm.evaluate.spec import EvaluateSpec
    from pandallm.evaluate.summary import summarize
    from pandallm.pipeline.plan.actual import PLAN_FILE, compared

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
    bits_file = folder / "bits_per_byte.jsonl"
    bits = list(read_jsonl(bits_file)) if bits_file.is_file() else []
    questions = [Question(**{**q, "options": tuple(q["options"])}) for q in read_jsonl(folder / "questions.jsonl")]
    tasks = [TaskSpec.model_validate(task) for task in read_json(folder / "tasks.json")]
    check_rows(rows, questions, tasks, spec.normalize, folder / "rows.jsonl")
    stored, rebuilt = read_json(folder / "scores.json"), summarize(rows, bits, questions, tasks, spec)
    numbers = compare(stored, rebuilt, "scores.json")
    if (folder / PLAN_FILE).is_file():
        stages = read_json(folder / "manifest.json")["stages"]
        numbers += compare(read_json(folder / PLAN_FILE), {"stages": compared(stages, folder)}, PLAN_FILE)
    return {"rows": len(rows), "numbers": numbers}


def check_rows(
    rows: Sequence[Mapping[str, Any]],
    questions: Sequence[Question],
    tasks: Sequence[TaskSpec],
    normalize: str,
    path: Path,
) -> None:
    """PandaError names the first row whose choice, or anything decided with it, is not what its scores or text say."""
    asked = {(q.task, q.id): q for q in questions}
    by_name = {t.name: t for t in tasks}
    for number, row in enumerate(rows, 1):
        where = f"{path}:{number}: question {row['id']} of {row['task']}"
        if row["correct"] != (row["choice"] == row["answer"]):
            raise PandaError(f"{where} says correct={row['correct']} against its own choice.")
        question, task = asked.get((row["task"], row["id"])), by_name.get(row["task"])
        if question is None or task is None or row["prompt"] not in task.prompts:
            raise PandaError(f"{where}: the question or its prompt is not in questions.jsonl and tasks.json.")
        if row["answer"] != question.answer or row["options"] != len(question.options):
            raise PandaError(f"{where}: answer or options differ from questions.jsonl.")
        for name, value in decided(row, question, task, normalize).items():
            if name in row and row[name] != value:
                raise PandaError(f"{where}: {name} is {row[name]}, but what is stored gives {value}.")


def decided(row: Mapping[str, Any], question: Question, task: TaskSpec, normalize: str) -> dict[str, Any]:
    """The fields of a row that follow from the others. Rows of earlier versions were read by an earlier grammar: of
    their completions nothing is decided again."""
    from pandallm.evaluate.prompts import fill, shown_options
    from pandallm.evaluate.run import generation_fields, likelihood_fields

    prompt = task.prompts[row["prompt"]]
    if row["method"] == "likelihood":
        if row["scores"] is None:
            return {}
        options = shown_options(prompt, question) if prompt.answer == "text" else None
        way = normalize if "choices" in row else "sum"
        return likelihood_fields(row["scores"], row.get("unconditional"), options, way)
    if row["completion"] is None or "choice_2023" not in row:
        return {}
    return generation_fields(row["completion"], fill(prompt, question, row["order"]).options, row["order"])


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

"""`panda eval`: one model folder on some tasks, without a recipe."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.progress import Progress
from pandallm.store import read_jsonl, write_json, write_text


def evaluate_folder(
    model: Path,
    tasks: Sequence[str],
    data: Sequence[str],
    *,
    prompts: str,
    methods: Sequence[str],
    limit: int | None,
    out: Path | None,
    device: str,
    threads: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Scores (the content of scores.json) of one model.

    Where `out` is given it receives rows.jsonl, questions.jsonl, tasks.json, evaluate.yaml and scores.json, from which
    `panda verify` rebuilds every number.

    Raises:
        BadInput: no model folder, unknown task or prompt, missing or broken question file, `out` exists.
    """
    import yaml

    from pandallm.data.files import resolve_files
    from pandallm.evaluate.run import evaluate_model
    from pandallm.evaluate.spec import EvaluateSpec
    from pandallm.evaluate.summary import summarize
    from pandallm.model.folder import check_model_folder
    from pandallm.pipeline.run_folder import write_questions
    from pandallm.tasks.load import load_task
    from pandallm.tasks.read import read_questions

    if out is not None and out.exists():
        raise BadInput(f"{out} exists already; give a new folder with --out.")
    if not tasks:
        raise BadInput("No task given; name one with --tasks, for example --tasks c3-m.")
    check_model_folder(model)
    loaded = []
    for i, name in enumerate(tasks):
        task = load_task(name)
        base = Path(name).parent if name.endswith((".yaml", ".yml")) else Path()
        pattern = data[i] if i < len(data) else (data[-1] if data else (str(base / task.files) if task.files else ""))
        if not pattern:
            raise BadInput(
                f"Task '{name}' needs its questions: give the file with --data ({task.source or 'see the task'})."
            )
        loaded.append((task, read_questions(task, resolve_files(str(Path(pattern).absolute()), f"--data of {name}"))))
    try:
        spec = EvaluateSpec.model_validate(
            {
                "models": [model.name],
                "tasks": [t.name for t, _ in loaded],
                "prompts": "all" if prompts == "all" else tuple(p.strip() for p in prompts.split(",")),
                "methods": tuple(methods),
                "limit": {"likelihood": limit, "generation": limit},
            }
        )
    except ValidationError as e:
        first = e.errors()[0]
        raise BadInput(f"--{first['loc'][0]}: {first['msg']}.") from None
    work = Path(tempfile.mkdtemp(prefix="panda-eval-", dir=out.parent if out and out.parent.is_dir() else None))
    try:
        evaluate_model(
            model, model.name, loaded, {}, spec, work, device=device, threads=threads, deadline=None, progress=progress
        )
        rows = list(read_jsonl(work / "rows.jsonl"))
        questions = write_questions(work, loaded, rows)
        write_text(work / "evaluate.yaml", yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
        scores = summarize(rows, [], questions, [t for t, _ in loaded], spec)
        write_json(work / "scores.json", scores)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return scores

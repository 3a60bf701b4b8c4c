"""`panda eval`: one model on some tasks, without a recipe."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.progress import Progress
from pandallm.store import exclusive, read_json, read_jsonl, write_json, write_text
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

if TYPE_CHECKING:
    from pandallm.evaluate.backend import Backend
    from pandallm.evaluate.spec import EvaluateSpec

#: Tokens that a question counts as for `--batch-size`.
QUESTION_TOKENS = 1024
#: What `--batch-size auto` means: tokens at once.
CPU_TOKENS, GPU_TOKENS = 8192, 32768


@dataclass(frozen=True)
class BackendOptions:
    """What answers: see `evaluate.backends.open_backend`. `model` is a model folder, or for a server its model's name."""

    kind: str = "local"
    server: str | None = None
    server_model: str | None = None
    devices: tuple[str, ...] = ("auto",)
    threads: int | None = None


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their questions, and the few-shot examples of those tasks that have a file or split of them."""

    tasks: list[tuple[TaskSpec, list[Question]]]
    examples: dict[str, list[Question]] = field(default_factory=dict)


def load_tasks(
    names: Sequence[str],
    data: Sequence[str],
    progress: Progress,
    *,
    shots: bool = False,
    download: bool = False,
) -> LoadedTasks:
    """Tasks by name (NAME or NAME:SPLIT) or YAML file, read from `data`: one folder or file for all, or one per task.

    Without `data` the task's own files or the cache. What a file holds that cannot be scored is told. `shots`: read the
    tasks' own examples too.
    Raises BadInput for an unknown task, a file that is missing or broken, or a task given twice.
    """
    from pandallm.tasks.open import open_examples, open_task

    if len(data) > 1 and len(data) != len(names):
        raise BadInput(f"--data is given {len(data)} times for {len(names)} tasks; give one folder, or one per task.")
    loaded = LoadedTasks([])
    for i, name in enumerate(names):
        where = data[i] if len(data) > 1 else data[0] if data else None
        task, read = open_task(name, where, download)
        if told := read.told():
            progress.say(f"{task.name}: {told}.")
        if any(t.name == task.name for t, _ in loaded.tasks):
            raise BadInput(f"Task {task.name} is given twice; score its splits one after the other.")
        loaded.tasks.append((task, read.questions))
        if shots and (examples := open_examples(name, where, download)):
            loaded.examples[task.name] = examples
    return loaded


def make_spec(model: str, tasks: Sequence[tuple[TaskSpec, Any]], settings: Mapping[str, Any]) -> "EvaluateSpec":
    """EvaluateSpec of a command's options; BadInput names the option that is wrong."""
    from pandallm.evaluate.select import selected_prompts
    from pandallm.evaluate.spec import EvaluateSpec

    try:
        spec = EvaluateSpec.model_validate({"models": [model], "tasks": [t.name for t, _ in tasks], **settings})
    except ValidationError as e:
        first = e.errors()[0]
        option = "-".join(str(x) for x in first["loc"] if isinstance(x, str)).replace("_", "-")
        raise BadInput(f"--{option}: {first['msg']}.") from None
    for task, _ in tasks:
        selected_prompts(task, spec.prompts)
    return spec


def batch_tokens(batch_size: str, devices: Sequence[str]) -> int:
    """Tokens at once for `--batch-size`: about so many questions (1: one passage at a time), or `auto`."""
    if batch_size == "auto":
        from pandallm.model.folder import resolve_device

        return GPU_TOKENS if resolve_device(devices[0]).startswith("cuda") else CPU_TOKENS
    if not batch_size.isdigit() or not int(batch_size):
        raise BadInput(f"--batch-size {batch_size}: give a number of questions such as 8, or auto.")
    return 1 if int(batch_size) == 1 else int(batch_size) * QUESTION_TOKENS


def plan(loaded: LoadedTasks, spec: "EvaluateSpec") -> list[str]:
    """One line per task: what difference its questions can show, before any is scored."""
    from collections import Counter

    from pandallm.evaluate.select import sample
    from pandallm.stats.power import plan_before

    lines = []
    for task, questions in loaded.tasks:
        limit = spec.limit.likelihood if "likelihood" in spec.methods else spec.limit.generation
        sizes = list(Counter(q.cluster for q in sample(questions, spec.limit.passages, limit)).values())
        lines.append(f"{task.name}: {plan_before(sum(sizes), sizes, confidence=spec.confidence)['text']}.")
    return lines


def evaluate_folder(
    model: str,
    loaded: LoadedTasks,
    spec: "EvaluateSpec",
    *,
    out: Path | None,
    options: BackendOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Scores (the content of scores.json) of one model.

    Where `out` is given it receives rows.jsonl, rows.parquet, questions.jsonl, tasks.json, evaluate.yaml and
    scores.json, from which `panda verify` rebuilds every number. Until then answers are kept in `out`.partial, from
    where the same command goes on after a kill.

    Raises:
        BadInput: no model folder, `out` exists, prompts that do not fit the model, a backend that cannot be opened.
        PandaError: another process writes to the same `out`.
    """
    from pandallm.evaluate.backends import close, open_backend
    from pandallm.model.folder import check_model_folder
    from pandallm.train.chat import TEMPLATE_NAME

    if out is not None and out.exists():
        raise BadInput(f"{out} exists already; give a new folder with --out.")
    if options.kind in ("local", "vllm"):
        check_model_folder(Path(model))
        learnt = read_json(Path(model) / "config.json").get(TEMPLATE_NAME)
        if learnt and spec.chat == "off":
            progress.say(
                f"{model} learnt dialogues with chat template {learnt} and is asked without; --chat on asks with it."
            )
    if options.kind == "server" and not (options.server_model or model):
        raise BadInput("--backend server needs the model's name: give it as the model, or with --server-model.")
    for line in plan(loaded, spec):
        progress.say(line)
    asked = (options.server_model or model) if options.kind == "server" else model
    backend = open_backend(
        options.kind,
        asked,
        url=options.server,
        devices=options.devices,
        dtype=spec.dtype,
        batch_tokens=spec.batch_tokens,
        chat=spec.chat == "on",  # turns go to the chat anyhow; under `both`, the rest must not
        threads=options.threads,
        progress=progress,
    )
    try:
        if out is None:
            with tempfile.TemporaryDirectory(prefix="panda-eval-") as name:
                return _evaluate(model, loaded, spec, Path(name), backend, options, progress)
        work = out.with_name(out.name + ".partial")
        work.mkdir(parents=True, exist_ok=True)
        with exclusive(work / ".lock", f"Another process is scoring into {out}; wait for it, or give another --out."):
            scores = _evaluate(model, loaded, spec, work, backend, options, progress)
            shutil.rmtree(work / ".journal", ignore_errors=True)
        (work / ".lock").unlink(missing_ok=True)
        work.rename(out)
        return scores
    finally:
        close(backend)


def _evaluate(
    model: str,
    loaded: LoadedTasks,
    spec: "EvaluateSpec",
    work: Path,
    backend: "Backend",
    options: BackendOptions,
    progress: Progress,
) -> dict[str, Any]:
    import yaml

    from pandallm.evaluate.run import evaluate_model
    from pandallm.evaluate.summary import summarize
    from pandallm.pipeline.run_folder import write_parquet, write_questions

    evaluate_model(
        Path(model),
        spec.models[0],
        loaded.tasks,
        {},
        spec,
        work,
        threads=options.threads,
        progress=progress,
        backend=backend,
        examples=loaded.examples,
    )
    (work / "bits_per_byte.jsonl").unlink(missing_ok=True)
    rows = list(read_jsonl(work / "rows.jsonl"))
    write_parquet(work / "rows.parquet", rows)
    questions = write_questions(work, loaded.tasks, rows)
    write_text(work / "evaluate.yaml", yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
    scores = summarize(rows, [], questions, [t for t, _ in loaded.tasks], spec)
    write_json(work / "scores.json", scores)
    return scores

"""Evaluate every model of a recipe, one artifact per model and task, so that a new task scores nothing again."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.progress import Progress
from pandallm.store import Artifact, Work, digest_json

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run
    from pandallm.tasks.types import Question

#: Fields of the evaluation that choose what is asked or how it is summed up; they are not part of a score's key.
NOT_IN_KEY = {"models", "tasks", "headline", "controls", "confidence", "bits_per_byte", "batch_tokens"}


def evaluate_all(run: "Run", models: Mapping[str, tuple[Path, str]], cost: float) -> dict[tuple[str, str], Artifact]:
    """(model, task) -> artifact; held-out text is scored under the task name `bits per byte`. `cost` is that of one model."""
    from pandallm.tasks.load import NOT_IN_HASH

    e = run.recipe.evaluate
    if e is None:
        return {}
    examples = {name: _examples(run, name) for name in e.tasks} if any(e.shots) else {}
    jobs: list[tuple[str, list[Any], dict[str, Artifact]]] = [(name, [run.tasks()[name]], {}) for name in e.tasks]
    if e.bits_per_byte:
        jobs.append(("bits per byte", [], {c: run.corpus(c) for c in e.bits_per_byte}))
    done: dict[tuple[str, str], Artifact] = {}
    for model in e.models:
        folder, digest = models[model]
        for name, tasks, corpora in jobs:
            settings: dict[str, Any] = e.model_dump(mode="json", exclude=NOT_IN_KEY)
            inputs = {"model": digest}
            if tasks:
                task, questions = tasks[0]
                settings |= {
                    "task": task.model_dump(mode="json", exclude=NOT_IN_HASH, exclude_defaults=True),
                    "name": task.name,
                    "model": model,
                }
                inputs["questions"] = digest_json([q.__dict__ for q in questions])
                if examples.get(name):
                    inputs["examples"] = digest_json([q.__dict__ for q in examples[name]])
            else:
                settings = {"bits_per_byte": True, "dtype": e.dtype, "model": model}
                inputs |= {f"corpus:{c}": held_out_digest(a) for c, a in corpora.items()}

            def make(
                work: Work,
                progress: Progress,
                tasks: list[Any] = tasks,
                corpora: dict[str, Artifact] = corpora,
                model: str = model,
                folder: Path = folder,
                name: str = name,
            ) -> Mapping[str, Any]:
                from pandallm.evaluate.run import evaluate_model

                return evaluate_model(
                    folder,
                    model,
                    tasks,
                    {c: a.path for c, a in corpora.items()},
                    e.model_copy(update={"bits_per_byte": tuple(corpora)}),
                    work.folder,
                    device=run.recipe.runtime.device,
                    threads=run.recipe.runtime.threads,
                    deadline=run.deadline,
                    progress=progress,
                    examples={task.name: examples.get(name, []) for task, _ in tasks},
                )

            title = f"evaluate {model} on {name}"
            done[model, name] = run.stage(
                title, "evaluate", settings, inputs, make, cost=cost / len(jobs), resumes=True
            )
    return done


def _examples(run: "Run", name: str) -> list["Question"]:
    """Few-shot examples of a task that has its own; [] where they are drawn from the questions themselves."""
    from pandallm.recipe.load import expand
    from pandallm.tasks.open import open_examples

    given = run.recipe.tasks.get(name, "")
    where = expand(given, run.variables(), f"tasks.{name}") if given else ""
    own = where.endswith((".yaml", ".yml"))
    return open_examples(where if own else name, None if own or not where else where)


def held_out_digest(corpus: Artifact) -> str:
    """Digest of a cleaned corpus's held-out documents alone: other changes of the corpus leave bits per byte as they were."""
    files: Mapping[str, Any] = corpus.manifest["files"]
    return digest_json({n: f["sha256"] for n, f in files.items() if n.startswith("held_out")})

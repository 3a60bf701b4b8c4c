"""Benchmarks by name or path: the YAML files in `builtin/` and a user's own."""

import difflib
import re
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.store import digest_json
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import LETTERS

PLACEHOLDERS = ("context", "question", "options", *LETTERS)
#: Fields that say where a task comes from or how it is shown, not what is scored.
NOT_IN_HASH = {
    "name",
    "version",
    "title",
    "language",
    "licence",
    "source",
    "files",
    "patterns",
    "urls",
    "hub",
    "sha256",
    "questions",
    "subjects",
    "near_chance",
}


def list_tasks() -> list[str]:
    """Names of the built-in tasks, sorted."""
    folder = resources.files("pandallm.tasks") / "builtin"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def split_name(name_or_path: str) -> tuple[str, str]:
    """`c3-m:dev` -> (`c3-m`, `dev`); without a split (`c3-m`, ``)."""
    match = re.fullmatch(r"(.+):([A-Za-z0-9_-]+)", name_or_path)
    return (match[1], match[2]) if match else (name_or_path, "")


def load_task(name_or_path: str | Path) -> TaskSpec:
    """The task of a built-in name, or of a YAML file (anything that ends in .yaml or .yml); `:SPLIT` may follow.

    Raises BadInput for an unknown name or split (with the nearest one), a missing file, a wrong field or an unknown
    placeholder.
    """
    text, split = split_name(str(name_or_path))
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise BadInput(f"{path} does not exist; name a task file or one of the built-in tasks: {_names()}.")
        return _with_split(_parse(path.read_text(encoding="utf-8"), text), split)
    names = list_tasks()
    if text not in names:
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput(f"There is no task {text!r}; {hint}Built-in tasks: {_names()}; or give the path of a YAML file.")
    source = resources.files("pandallm.tasks") / "builtin" / f"{text}.yaml"
    return _with_split(_parse(source.read_text(encoding="utf-8"), f"{text}.yaml"), split)


def task_hash(task: TaskSpec) -> str:
    """sha256 of everything in a task that can change a score: reader, selection, split, examples and prompts.

    Name, version, title, licence and where the files come from are left out; a field at its default is too, so that
    a new setting does not change the hashes of tasks that do not use it.
    """
    return digest_json(task.model_dump(mode="json", exclude=NOT_IN_HASH, exclude_defaults=True))


def _with_split(task: TaskSpec, split: str) -> TaskSpec:
    if not split or split == task.split:
        return task
    known = sorted({*task.patterns, *task.urls})
    if split not in known:
        has = f"it has {', '.join(known)}" if known else "it has no splits; name its files instead"
        raise BadInput(f"Task {task.name} has no split {split!r}; {has}.")
    return task.model_copy(update={"split": split})


def _names() -> str:
    return ", ".join(list_tasks())


def _parse(text: str, where: str) -> TaskSpec:
    try:
        task = TaskSpec.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as e:
        raise BadInput(f"{where} is not valid YAML ({' '.join(str(e).split())}).") from None
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(x) for x in first["loc"]) or "the file"
        raise BadInput(f"{where}: {field}: {first['msg']}.") from None
    for name, prompt in task.prompts.items():
        for field in ("template", "unconditional"):
            for placeholder in re.findall(r"\{([A-Za-z_]+)\}", getattr(prompt, field)):
                if placeholder not in PLACEHOLDERS:
                    raise BadInput(
                        f"{where}: prompts.{name}.{field}: unknown placeholder {{{placeholder}}}; "
                        "use {context}, {question}, {options}, or a letter such as {A}."
                    )
    return task

"""Benchmarks by name or path: the YAML files in `builtin/` and a user's own."""

import difflib
import re
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import LETTERS

PLACEHOLDERS = ("context", "question", "options", *LETTERS)


def list_tasks() -> list[str]:
    """Names of the built-in tasks, sorted."""
    folder = resources.files("pandallm.tasks") / "builtin"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_task(name_or_path: str | Path) -> TaskSpec:
    """The task of a built-in name, or of a YAML file (anything that ends in .yaml or .yml).

    Raises BadInput for an unknown name (with the nearest one), a missing file, a wrong field or an unknown placeholder.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise BadInput(f"{path} does not exist; name a task file or one of the built-in tasks: {_names()}.")
        return _parse(path.read_text(encoding="utf-8"), text)
    names = list_tasks()
    if text not in names:
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput(f"There is no task {text!r}; {hint}Built-in tasks: {_names()}; or give the path of a YAML file.")
    source = resources.files("pandallm.tasks") / "builtin" / f"{text}.yaml"
    return _parse(source.read_text(encoding="utf-8"), f"{text}.yaml")


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
        for placeholder in re.findall(r"\{([A-Za-z_]+)\}", prompt.template):
            if placeholder not in PLACEHOLDERS:
                raise BadInput(
                    f"{where}: prompts.{name}.template: unknown placeholder {{{placeholder}}}; "
                    "use {context}, {question}, {options}, or a letter such as {A}."
                )
    return task

"""A task's name and where its files may be -> its questions; and what is there of every built-in task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandallm.errors import BadInput
from pandallm.tasks.load import list_tasks, load_task, split_name
from pandallm.tasks.locate import cache_folder, find, how_to_get, locate, with_split_of
from pandallm.tasks.read import Read, read_task
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


def open_task(name: str, data: str | Path | None = None, download: bool = False) -> tuple[TaskSpec, Read]:
    """The task of a name (`c3-m`, `c3-m:dev`, `my.yaml`) and its questions, from `data` or where `locate` finds them.

    The returned task's `split` is the one that the files' names tell, "" where they tell none. A path in a task's
    YAML is relative to that file. Raises BadInput as `load_task`, `locate` and `read_task` do.
    """
    task = _at_home(load_task(name), name)
    files = locate(task, data, download)
    return with_split_of(task, files), read_task(task, files)


def open_examples(name: str, data: str | Path | None = None, download: bool = False) -> list[Question]:
    """Worked examples for few-shot prompts: the questions of the split, or of the file, that `examples` names.

    [] where the task names none: its own questions serve, each prompt leaving out the question that it asks. `data` is
    what the questions came from; of a file, its folder is searched. Raises BadInput where the examples are not found.
    """
    task = _at_home(load_task(name), name)
    if not task.examples:
        return []
    if task.examples not in task.patterns:
        path = Path(split_name(name)[0]).parent / task.examples
        return read_task(task, locate(task, path)).questions
    task = task.model_copy(update={"split": task.examples, "files": ""})
    folder = Path(data).expanduser() if data else None
    if folder is not None and not folder.is_dir():
        folder = folder.parent
    files = find(task, [f for f in (folder, cache_folder() / task.name) if f is not None and f.is_dir()])
    if not files:
        try:
            files = locate(task, None, download)
        except BadInput as e:
            raise BadInput(f"Few-shot examples of {task.name} come from its {task.split} split. {e}") from None
    return read_task(task, files).questions


def _at_home(task: TaskSpec, name: str) -> TaskSpec:
    """A YAML's own `files` are relative to the YAML."""
    if not task.files or "${" in task.files or not split_name(name)[0].endswith((".yaml", ".yml")):
        return task
    return task.model_copy(update={"files": str(Path(split_name(name)[0]).parent / task.files)})


@dataclass(frozen=True)
class TaskStatus:
    """One split of a built-in task, and what is there of it.

    `files`: what was found; `n`: its questions (None where nothing was found or it cannot be read); `expected`: the
    published split's; `default`: whether the task's name alone means this split; `told`: what was left out, or what is
    wrong with the files; `get`: how to get them.
    """

    name: str
    split: str
    default: bool
    title: str
    language: str
    licence: str
    files: tuple[Path, ...]
    n: int | None
    expected: int | None
    told: str
    get: str


def task_status(folders: Sequence[Path] = ()) -> list[TaskStatus]:
    """Every split of every built-in task: what is in `folders` or the cache, and how to get what is not.

    Files that are found are read, so that `n` is what an evaluation would score. Raises BadInput for a missing folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder; name one that holds benchmark files.")
    out = []
    for name in list_tasks():
        task = load_task(name)
        for split in task.patterns or ("",):
            out.append(_status(task.model_copy(update={"split": split}), split == task.split, folders))
    return out


def _status(task: TaskSpec, default: bool, folders: Sequence[Path]) -> TaskStatus:
    files: list[Path] = []
    n, told = None, ""
    try:
        files = find(task, [*folders, *([f] if (f := cache_folder() / task.name).is_dir() else [])])
        if files:
            read = read_task(task, files)
            n, told = len(read.questions), read.told()
    except BadInput as e:
        told = str(e)
    made = not task.patterns
    return TaskStatus(
        name=task.name,
        split=task.split,
        default=default,
        title=task.title,
        language=task.language,
        licence=task.licence,
        files=tuple(files),
        n=n,
        expected=task.questions.get(task.split),
        told=told,
        get="made by a recipe with a world (panda run)" if made else how_to_get(task),
    )

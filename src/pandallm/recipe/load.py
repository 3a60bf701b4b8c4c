"""Load a recipe: YAML, overrides, types, names. Every mistake becomes one sentence with file, line and field."""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.recipe.spec import Recipe, ScratchTraining, StageSpec
from pandallm.recipe.yaml_lines import Document
from pandallm.spec import nearest

DEFAULT = "microworld"
#: The fields of which a stage takes exactly one: an override of one replaces the others.
BUDGETS = ("epochs", "documents", "tokens", "steps")


def find_recipe(name: str | None) -> Path:
    """Path of a recipe: a file, or the name of one that ships with the package (none: the microworld)."""
    if name and (Path(name).exists() or name.endswith((".yaml", ".yml")) or "/" in name):
        return Path(name)
    shipped = Path(str(package_files("pandallm") / "recipes"))
    path = shipped / f"{name or DEFAULT}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in shipped.glob("*.yaml"))
        raise BadInput(
            f"No recipe '{name}': it is neither a file nor one that ships with pandallm.{nearest(name or '', known)}"
        )
    return path


def load_recipe(name: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `a.b.c=value` overrides, check types and names.

    Relative `paths` are resolved: in the file against the file's folder, in overrides and in `PANDA_<NAME>` variables against the working folder.

    Raises:
        BadInput: names file, line and field (or the override), and the nearest right name.
    """
    draft = read_recipe(name)
    for text in overrides:
        draft.override(text)
    return draft.recipe()


#: As a value of `Draft.change`: the field is taken out.
REMOVE: Any = object()


class Draft:
    """A recipe file that was read and not checked yet: it may be changed, as often as one likes, before `recipe()` checks it."""

    def __init__(
        self, document: Document, data: dict[str, Any], changed: Mapping[tuple[str, ...], str] | None = None
    ) -> None:
        self.data = data
        self._document = document
        self._changed = dict(changed or {})

    def copy(self) -> "Draft":
        """A draft of its own: changes to one do not reach the other."""
        return Draft(self._document, _unshared(self.data), self._changed)

    def override(self, text: str) -> None:
        """Apply one `a.b.c=value`; the value is YAML. Raises BadInput where the path leads nowhere."""
        path, value = _parse_override(text)
        self.change(path, value, f"override '{text}'")

    def change(self, path: tuple[str, ...], value: Any, told: str) -> None:
        """Set a field to a value, or take it out (REMOVE). Errors about it begin with `told`. Raises BadInput."""
        _set(self.data, path, value, told)
        self._changed[path] = told

    def recipe(self) -> Recipe:
        """The recipe, its types and names checked. Raises BadInput."""
        try:
            recipe = Recipe.model_validate(self.data)
        except ValidationError as e:
            raise BadInput(error_sentence(e, self._document, self._changed)) from None
        _check_names(recipe, self._document, self._changed)
        return recipe


def read_recipe(name: str | None = None) -> Draft:
    """A recipe file (as `find_recipe` finds it) as a draft. Raises BadInput where it is missing or not YAML."""
    path = find_recipe(name)
    document = Document.read(path)
    data = _unshared(document.data)
    _resolve_paths(data, path)
    return Draft(document, data)


def _unshared(value: Any) -> Any:
    """A copy in which nothing is shared: an anchor used twice is two values, and a change to one leaves the other."""
    if isinstance(value, dict):
        return {k: _unshared(v) for k, v in value.items()}
    return [_unshared(v) for v in value] if isinstance(value, list) else value


def _resolve_paths(data: dict[str, Any], path: Path) -> None:
    paths = data.get("paths")
    if not isinstance(paths, dict):
        return
    for name, value in paths.items():
        variable = os.environ.get(f"PANDA_{str(name).upper()}")
        if variable:
            paths[name] = str(Path(variable).expanduser().absolute())
        elif isinstance(value, str):
            paths[name] = os.path.normpath(path.absolute().parent / Path(value).expanduser())


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Path and value of `a.b.c=value`."""
    key, sign, value_text = text.partition("=")
    parts = tuple(key.strip().split("."))
    if not sign or not all(parts):
        raise BadInput(f"'{text}' is not an override; write field.field=value, for example stages.pretrain.steps=10.")
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        raise BadInput(f"Override '{text}': the value is not valid YAML; quote it.") from None
    if len(parts) == 2 and parts[0] == "paths" and isinstance(value, str):
        value = str(Path(value).expanduser().absolute())
    return parts, value


def _set(data: dict[str, Any], parts: tuple[str, ...], value: Any, told: str) -> None:
    told = told[0].upper() + told[1:]
    node: Any = data
    for i, part in enumerate(parts[:-1]):
        if isinstance(node, list):
            node = _item(node, part, told)
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise BadInput(f"{told}: '{'.'.join(parts[: i + 1])}' holds a value, not fields.")
    last = parts[-1]
    if isinstance(node, list):
        _item(node, last, told)
        if value is REMOVE:
            del node[int(last)]
        else:
            node[int(last)] = value
    elif value is REMOVE:
        node.pop(last, None)
    else:
        if last in BUDGETS and value is not None:
            for other in BUDGETS:
                node.pop(other, None)
        node[last] = value


def _item(node: list[Any], part: str, told: str) -> Any:
    if not part.isdigit() or int(part) >= len(node):
        raise BadInput(f"{told}: '{part}' is not the number of an item (0 to {len(node) - 1}).")
    return node[int(part)]


def _where(path: Sequence[str | int], document: Document, overridden: Mapping[tuple[str, ...], str]) -> str:
    dotted = tuple(str(p) for p in path)
    for parts, text in overridden.items():
        if dotted[: len(parts)] == parts or parts[: len(dotted)] == dotted:
            return text
    line = document.line(path)
    return f"{document.name}:{line}" if line else document.name


def _as_written(path: Sequence[str | int], data: Any) -> list[str | int]:
    """A path without what pydantic puts in and the file does not know: a union's tag, `[key]` after a name that is itself wrong."""
    kept: list[str | int] = []
    for i, part in enumerate(path):
        if part == "[key]":
            continue
        below = data.get(part) if isinstance(data, dict) else None
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            below = data[part]
        # A tag stands where the next name is a neighbour, not something below it.
        if (
            not isinstance(below, dict | list)
            and isinstance(data, dict)
            and path[i + 1 : i + 2]
            and path[i + 1] in data
        ):
            continue
        kept.append(part)
        data = below
    return kept


def _plain(error: Mapping[str, Any]) -> str | None:
    """What is wrong, for kinds of errors that pydantic words for programmers; None for the others."""
    kind, found = error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "string_pattern_mismatch" and "A-Za-z0-9" in context["pattern"]:
        allowed = (
            context["pattern"].partition("][")[2].removesuffix("]*$").removeprefix("A-Za-z0-9").replace(r"\-", "-")
        )
        return f"'{found}' is no name: use letters, digits and {' '.join(allowed)}, the first a letter or a digit"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"give fields with values (NAME: VALUE), not '{found}'"
    if kind == "too_short":
        least = context["min_length"]
        return f"needs at least {least} {'entries' if least > 1 else 'entry'}, found {context['actual_length']}"
    return None


def error_sentence(
    error: ValidationError, document: Document, overridden: Mapping[tuple[str, ...], str] | None = None
) -> str:
    """The first error as a sentence; the number of further ones is told. `overridden`: path -> what to say instead of file and line."""
    errors = error.errors()
    first = errors[0]
    path = list(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "unknown_field":
        path.append(first["ctx"]["field"])
    path = _as_written(path, document.data)
    field = ".".join(str(p) for p in path)
    message = _plain(first) or message
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        known = [w.strip("'") for w in first["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        message = f"'{first['input']}' is not known.{nearest(first['input'], known)}"
    if first["type"] == "union_tag_invalid":
        known = [w.strip("'") for w in first["ctx"]["expected_tags"].split(", ")]
        tag = str(first["ctx"]["tag"])
        message = f"kind '{tag}' is not known.{nearest(tag, known)}"
    if first["type"] == "missing":
        message = "is required but missing"
        field, path = field, path[:-1] or path
    more = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
    text = f"{_where(path, document, overridden or {})}: {field}: {message}"
    return text.rstrip(".") + "." + more if not text.endswith("?") else text + more


VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def expand(text: str, variables: Mapping[str, str], where: str) -> str:
    """Replace ${name}; BadInput names the unknown variable and the nearest known."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            raise BadInput(
                f"{where}: unknown variable '${{{name}}}'.{nearest(name, sorted(variables))} Define it under 'paths'."
            )
        return variables[name]

    return VARIABLE.sub(value, text)


def _keeps_documents(corpus: CorpusSpec) -> bool:
    kept = [source.held_out or corpus.held_out for source in corpus.sources.values()]
    return any(h.documents or h.share for h in kept)


def _check_names(recipe: Recipe, document: Document, overridden: Mapping[tuple[str, ...], str]) -> None:
    """Names that point to other parts of the file: corpora, stages, tasks, variables."""

    def refuse(path: Sequence[str | int], what: str, name: str, known: list[str]) -> None:
        if name not in known:
            place = _where(path, document, overridden)
            raise BadInput(f"{place}: {'.'.join(map(str, path))}: unknown {what} '{name}'.{nearest(name, known)}")

    corpora = sorted(recipe.corpora)
    if recipe.base.scratch:
        refuse(["base", "scratch", "train", "corpus"], "corpus", recipe.base.scratch.train.corpus, corpora)
        for i, corpus in enumerate(recipe.base.scratch.tokenizer.corpora):
            refuse(["base", "scratch", "tokenizer", "corpora", i], "corpus", corpus, corpora)
    if recipe.base.extend:
        for i, corpus in enumerate(recipe.base.extend.corpora):
            refuse(["base", "extend", "corpora", i], "corpus", corpus, corpora)
        if not corpora and recipe.base.extend.size:
            place = _where(["base", "extend"], document, overridden)
            raise BadInput(f"{place}: base.extend: there is no corpus to learn new pieces on; add one under 'corpora'.")
    watching: dict[tuple[str, ...], StageSpec | ScratchTraining] = {("stages", n): s for n, s in recipe.stages.items()}
    if recipe.base.scratch:
        watching[("base", "scratch", "train")] = recipe.base.scratch.train
    for field, stage_spec in watching.items():
        if stage_spec.watch is None:
            continue
        for i, corpus in enumerate(stage_spec.watch.corpora):
            refuse([*field, "watch", "corpora", i], "corpus", corpus, corpora)
        for i, corpus in enumerate(stage_spec.watch.decide):
            watched_names = sorted(stage_spec.watch.corpora or (stage_spec.corpus,))
            refuse([*field, "watch", "decide", i], "watched corpus", corpus, watched_names)
        for corpus in stage_spec.watch.corpora or (stage_spec.corpus,):
            if (watched := recipe.corpora.get(corpus)) and not _keeps_documents(watched):
                place = _where([*field, "watch"], document, overridden)
                raise BadInput(
                    f"{place}: {'.'.join(field)}.watch: corpus '{corpus}' keeps no documents; set corpora.{corpus}.held_out.documents."
                )
    reserved = {
        "base": "the base model",
        **({"original": "the model before base.extend"} if recipe.base.extend else {}),
    }
    before = ["base"]
    for name, stage in recipe.stages.items():
        if name in reserved:
            place = _where(["stages", name], document, overridden)
            raise BadInput(f"{place}: stages.{name}: '{name}' names {reserved[name]}; give the stage another name.")
        refuse(["stages", name, "from"], "stage", stage.from_, before)
        refuse(["stages", name, "corpus"], "corpus", stage.corpus, corpora)
        before.append(name)
    if recipe.base.extend:
        before.append("original")
    from pandallm.tasks.load import list_tasks

    tasks = sorted({*recipe.tasks, *list_tasks()})
    variables = sorted([*recipe.paths, *(["world"] if recipe.world else [])])
    for corpus, spec in recipe.corpora.items():
        for source, s in spec.sources.items():
            for pattern in [s.files] if isinstance(s.files, str) else s.files:
                for variable in VARIABLE.findall(pattern):
                    refuse(["corpora", corpus, "sources", source, "files"], "variable", variable, variables)
        shares = [s.share is not None for s in spec.sources.values()]
        if any(shares) and not all(shares):
            missing = next(n for n, s in spec.sources.items() if s.share is None)
            place = _where(["corpora", corpus, "sources", missing], document, overridden)
            raise BadInput(
                f"{place}: corpora.{corpus}.sources.{missing}: 'share' is missing; either all sources of a corpus set it or none."
            )
        for i, task in enumerate(spec.decontaminate.against if spec.decontaminate else ()):
            refuse(["corpora", corpus, "decontaminate", "against", i], "task", task, tasks)
    if e := recipe.evaluate:
        if e.chat != "off" and recipe.base.scratch and all(s.chat_template == "none" for s in recipe.stages.values()):
            place = _where(["evaluate", "chat"], document, overridden)
            raise BadInput(
                f"{place}: evaluate.chat: a base made from scratch has no chat template; use 'off', or set chat_template "
                "in the stage that teaches dialogues."
            )
        for i, model in enumerate(e.models):
            refuse(["evaluate", "models", i], "model", model, before)
        for i, task in enumerate(e.tasks):
            refuse(["evaluate", "tasks", i], "task", task, tasks)
        for i, corpus in enumerate(e.bits_per_byte):
            refuse(["evaluate", "bits_per_byte", i], "corpus", corpus, corpora)
        for name, select in [("headline", e.headline), *((f"controls.{n}", c) for n, c in e.controls.items())]:
            for i, task in enumerate(select.tasks if select else ()):
                refuse(["evaluate", *name.split("."), "tasks", i], "evaluated task", task, sorted(e.tasks))
    if r := recipe.release:
        refuse(["release", "base"], "model", r.base, before)
        refuse(["release", "target"], "model", r.target, before)

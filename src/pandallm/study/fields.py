"""Does the recipe have this field? Asked before a study changes it, so that a wrong name is answered by the nearest right one."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from pandallm.errors import BadInput
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest

#: What belongs to the machine or to the study itself.
NOT_A_FACTOR = ("name", "description", "seed", "runtime")


def check_field(data: Any, dotted: str, where: str) -> tuple[str, ...]:
    """The path of a dotted field that a recipe with this content has or may have.

    A new entry of a named mapping (another stage) is allowed as the last part. Raises BadInput naming `where` and the nearest field.
    """
    path = tuple(dotted.split("."))
    if path[0] in NOT_A_FACTOR:
        what = "is given by the study's own fields" if path[0] != "runtime" else "does not change the result"
        raise BadInput(f"{where}: '{dotted}' cannot be a factor: {path[0]} {what}.")
    kinds: list[Any] = [Recipe]
    node = data
    for i, part in enumerate(path):
        before = ".".join(path[:i]) or "the recipe"
        specs, values, items, anything = _sort(kinds)
        fields = {f.alias or name: f.annotation for spec in specs for name, f in spec.model_fields.items()}
        entries = [str(key) for key in node] if isinstance(node, dict) and values else []
        if part in fields:
            kinds = [spec.model_fields[n].annotation for spec in specs for n in _names(spec, part)]
        elif values and (part in entries or i == len(path) - 1):
            kinds = values
        elif items:
            count = len(node) if isinstance(node, list) else 0
            if not part.isdigit() or int(part) >= count:
                raise BadInput(
                    f"{where}: '{dotted}': {before} is a list of {count}; '{part}' is not the number of an item."
                )
            kinds = items
        elif anything:
            return path
        else:
            known = [*fields, *entries]
            what = f"'{part}' is no field of {before}" if known else f"{before} holds a value, not fields"
            raise BadInput(f"{where}: '{dotted}': {what}.{nearest(part, sorted(known))}")
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            node = None
    return path


def is_entry(dotted: str) -> bool:
    """Whether a path names an entry of a mapping, such as a stage or a source, which null takes out."""
    kinds: list[Any] = [Recipe]
    entry = False
    for part in dotted.split("."):
        specs, values, items, _ = _sort(kinds)
        named = [spec.model_fields[n].annotation for spec in specs for n in _names(spec, part)]
        entry = not named and bool(values)
        kinds = named or values or items
    return entry


def _names(spec: type[BaseModel], part: str) -> list[str]:
    return [name for name, f in spec.model_fields.items() if (f.alias or name) == part]


def _sort(kinds: Sequence[Any]) -> tuple[list[type[BaseModel]], list[Any], list[Any], bool]:
    """The settings classes among types; what the mappings and the lists among them hold; whether one may be anything."""
    specs, values, items, anything = list[type[BaseModel]](), list[Any](), list[Any](), False
    open_ = list(kinds)
    while open_:
        kind = open_.pop(0)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            open_.append(arguments[0])
        elif origin in (Union, types.UnionType):
            open_ += arguments
        elif origin is dict:
            values.append(arguments[1])
        elif origin in (tuple, list):
            items += [a for a in arguments if a is not Ellipsis]
        elif kind is Any:
            anything = True
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            specs.append(kind)
    return specs, values, items, anything

"""What changes between two recipes: which settings, which stages are made anew and which are shared."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.pipeline.graph import StageNode, stage_graph
from pandallm.recipe.spec import Recipe

#: Fields, by their beginnings, that change no result of a run.
_NO_RESULT = ("name", "description", "runtime.")
_NO_RESULT_ENDS = (".licence", ".expected")

_ABSENT = object()


def diff_recipes(a: Recipe, b: Recipe) -> dict[str, Any]:
    """Both recipes side by side, as plain data.

    {"a", "b" (names), "settings": [{"field", "a", "b" (left out where the field is absent there), "changes_results"}],
    "stages": [{"name", "kind", "state": "shared" | "changed" | "new", "as" (its name in a, where that differs),
    "settings": [fields], "inputs": [names] (both of changed ones)}] (of b, in the order of a run), "only_in_a": [names]}.
    A stage is shared where both recipes make one artifact of it, so that the second run takes it from the store.
    """
    before, after = stage_graph(a), stage_graph(b)
    known = {node.identity: node.name for node in reversed(before)}
    names = {node.name: node for node in before}
    stages = [_stage(node, known, names) for node in after]
    kept = {s["name"] for s in stages} | {s["as"] for s in stages if "as" in s}
    return {
        "a": a.name,
        "b": b.name,
        "settings": _settings(_fields(a), _fields(b)),
        "stages": stages,
        "only_in_a": [node.name for node in before if node.name not in kept],
    }


def add_hours(diff: dict[str, Any], b: Recipe, on: str) -> None:
    """`hours`: what training on these devices takes of `b`'s stages, {"place", "shared", "made": {"hours", "low", "high"}}.

    By `panda plan`, whatever this machine's store holds already. Raises BadInput as `plan_recipe` does.
    """
    from pandallm.pipeline.plan.recipe import plan_recipe

    plan = plan_recipe(b, on=on)
    states = {s["name"]: s["state"] for s in diff["stages"]}
    sums = {part: dict.fromkeys(("hours", "low", "high"), 0.0) for part in ("shared", "made")}
    for stage in plan["stages"]:
        part = sums["shared" if states[f"train {stage['name']}"] == "shared" else "made"]
        for name in part:
            part[name] += stage["hours"][name]
    diff["hours"] = {"place": plan["place"]["label"], **sums}


def _stage(node: StageNode, known: Mapping[str, str], names: Mapping[str, StageNode]) -> dict[str, Any]:
    stage: dict[str, Any] = {"name": node.name, "kind": node.kind}
    if node.identity in known:
        same = node.name in names and names[node.name].identity == node.identity
        return {**stage, "state": "shared", **({} if same else {"as": known[node.identity]})}
    old = names.get(node.name)
    if old is None:
        return {**stage, "state": "new"}
    settings = [s["field"] for s in _settings(_flat(old.settings), _flat(node.settings))]
    inputs = sorted(k for k in {*old.inputs, *node.inputs} if old.inputs.get(k) != node.inputs.get(k))
    return {**stage, "state": "changed", "settings": settings, "inputs": inputs}


def _fields(recipe: Recipe) -> dict[str, Any]:
    return _flat(recipe.model_dump(mode="json", by_alias=True, exclude_none=True))


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields whose values differ; a part that one side lacks whole is one entry."""
    a, b = _fold(a, b), _fold(b, a)
    changes = []
    for field in [*a, *(f for f in b if f not in a)]:
        x, y = a.get(field, _ABSENT), b.get(field, _ABSENT)
        if x == y:
            continue
        change = {"field": field, **({} if x is _ABSENT else {"a": x}), **({} if y is _ABSENT else {"b": y})}
        idle = field.startswith(_NO_RESULT) or field.endswith(_NO_RESULT_ENDS)
        changes.append({**change, "changes_results": not idle})
    return changes


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted field -> value; lists are values."""
    if isinstance(value, Mapping) and value:
        return {
            k: v for name, part in value.items() for k, v in _flat(part, f"{path}.{name}" if path else name).items()
        }
    return {path: value}


def _fold(fields: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with each part that has no counterpart in `other` put together again, at the highest such level."""
    levels = {".".join(parts[:n]) for f in other for parts in [f.split(".")] for n in range(1, len(parts) + 1)}
    folded: dict[str, Any] = {}
    for field, value in fields.items():
        parts = field.split(".")
        n = next((n for n in range(1, len(parts)) if ".".join(parts[:n]) not in levels), len(parts))
        target, rest = ".".join(parts[:n]), parts[n:]
        if not rest:
            folded[target] = value
            continue
        node = folded.setdefault(target, {})
        for part in rest[:-1]:
            node = node.setdefault(part, {})
        node[rest[-1]] = value
    return folded


def print_diff(diff: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Show `diff_recipes` to people; `labels` say where a and b come from."""
    print(f"a  {labels[0]}\nb  {labels[1]}")
    results = [s for s in diff["settings"] if s["changes_results"]]
    others = [s for s in diff["settings"] if not s["changes_results"]]
    for title, changes in (("Settings", results), ("Settings that change no result", others)):
        if changes:
            print(f"\n{title}")
            width = min(48, max(len(s["field"]) for s in changes))
            for s in changes:
                print(f"  {s['field']:{width}}  {_value(s, 'a')} -> {_value(s, 'b')}")
    if not results:
        print("\nNo setting that changes a result differs.")
    print("\nStages of b")
    shared = [s["name"] + (f" (a's {s['as']})" if "as" in s else "") for s in diff["stages"] if s["state"] == "shared"]
    if shared:
        print(f"  shared with a: {', '.join(shared)}")
    reasons: dict[str, list[str]] = {}
    for s in diff["stages"]:
        if s["state"] == "changed":
            reasons.setdefault(_reason(s), []).append(s["name"])
    for reason, names in reasons.items():
        print(f"  made anew: {', '.join(names)} ({reason})")
    if new := [s["name"] for s in diff["stages"] if s["state"] == "new"]:
        print(f"  only in b: {', '.join(new)}")
    if diff["only_in_a"]:
        print(f"  only in a: {', '.join(diff['only_in_a'])}")
    if "hours" in diff:
        from pandallm.pipeline.plan.show import hours

        made, kept = (hours(diff["hours"][part]) for part in ("made", "shared"))
        print(f"\nTraining of b on {diff['hours']['place']}: {made} made anew, {kept} shared.")


def _reason(stage: Mapping[str, Any]) -> str:
    parts = [f"settings: {', '.join(stage['settings'])}"] if stage["settings"] else []
    reads = list(dict.fromkeys(name.partition("/")[0] for name in stage["inputs"]))  # of files, their source
    return "; ".join([*parts, *([f"reads other {', '.join(reads)}"] if reads else [])])


def _value(change: Mapping[str, Any], side: str) -> str:
    if side not in change:
        return "(none)"
    text = json.dumps(change[side], ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."

"""The same questions, asked in the same way, of every model: what a comparison may rest on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pandallm.errors import BadInput
from pandallm.tasks.spec import PromptSpec, TaskSpec

Row = Mapping[str, Any]


class Condition(NamedTuple):
    """One way in which one task was asked. Rows of two models are compared within one condition only."""

    task: str
    group: str
    method: str
    shots: int
    chat: bool
    prompt: str

    @property
    def cell(self) -> tuple[str, str, str, int, bool]:
        """Everything but the prompt: what a mean over prompts is taken within."""
        return self[:5]

    def __str__(self) -> str:
        more = [f"group {self.group}"] if self.group else []
        more += [f"prompt {self.prompt}", self.method]
        more += [f"{self.shots} shots"] if self.shots else []
        more += ["chat template"] if self.chat else []
        return f"{self.task} ({', '.join(more)})"


@dataclass(frozen=True)
class ScoredModel:
    """One model's rows and what they were asked. `name` is unique within a comparison.

    `questions`: (task, id) -> the fields of `Question`, empty where a folder holds no texts. `rules`: method -> how an answer was reached
    beyond the prompt (the score that chooses, the length of a completion). `whole`: methods for which every question of the files was asked.
    """

    name: str
    rows: Sequence[Row]
    tasks: Sequence[TaskSpec]
    questions: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Aligned:
    """`rows`: condition -> one mapping id -> row per model, in the order of the models; all of one condition have the same ids.

    `left_out`: sentences, one for each thing that not all models share (with `common` only).
    """

    rows: dict[Condition, list[dict[str, Row]]]
    left_out: list[str]


def align(models: Sequence[ScoredModel], tasks: Sequence[str] = (), common: bool = False) -> Aligned:
    """The rows on which `models` may be compared: options as published (`order` 0), `tasks` only (all where empty).

    Raises BadInput where the models were scored on different tasks, task versions, prompts or questions; with `common` what they do not
    share is left out instead and told.
    """
    per_model = [_conditions(m, tasks) for m in models]
    known = {t.name: [_spec(m, t.name) for m in models] for m in models for t in m.tasks}
    if missing := [t for t in tasks if t not in {c.task for rows in per_model for c in rows}]:
        scored = ", ".join(sorted({r["task"] for m in models for r in m.rows}))
        raise BadInput(f"--tasks: no rows of task {missing[0]!r}; the folders hold {scored}.")
    left_out: list[str] = []

    def differ(sentence: str, rest: str) -> None:
        if not common:
            raise BadInput(f"{sentence}; {rest}")
        left_out.append(sentence)

    names = [m.name for m in models]
    order = list(dict.fromkeys(c for rows in per_model for c in rows))
    versions: dict[str, bool] = {}
    rows: dict[Condition, list[dict[str, Row]]] = {}
    hint = "compare only what all have with --common, or score them alike."
    absent_tasks: set[tuple[str, str]] = set()
    for condition in order:
        task = condition.task
        without = [n for n, r in zip(names, per_model) if condition not in r]
        if without:
            whole = [n for n, r in zip(names, per_model) if not any(c.task == task for c in r)]
            if whole and (task, whole[0]) in absent_tasks:
                continue
            if whole:
                absent_tasks.add((task, whole[0]))
            differ(
                f"{whole[0]} was not scored on {task}" if whole else f"{without[0]} was not scored on {condition}", hint
            )
            continue
        if task not in versions:
            what = _different_task(known.get(task, []), names)
            versions[task] = what is None
            if what is not None:
                differ(f"{task}: {what}", hint)
        if not versions[task]:
            continue
        what = _different_prompt(known.get(task, []), names, condition.prompt) or _different_rules(models, condition)
        if what is not None:
            differ(f"{condition}: {what}", hint)
            continue
        found = [r[condition] for r in per_model]
        shared = [k for k in found[0] if all(k in f for f in found[1:])]
        same = [k for k in shared if _same_question(models, [f[k] for f in found])]
        for name, other in zip(names[1:], found[1:]):
            first, second = len(found[0].keys() - other.keys()), len(other.keys() - found[0].keys())
            if first or second:
                differ(
                    f"{condition}: {names[0]} and {name} were scored on different questions ({first} only by {names[0]}, {second} only by {name})",
                    f"compare them on the {len(same)} that all have with --common, or score them alike.",
                )
        if len(same) < len(shared):
            changed = next(k for k in shared if k not in set(same))
            differ(
                f"{condition}: {len(shared) - len(same)} questions have the same id but another text or answer, first {changed!r}",
                f"compare them on the {len(same)} that all have with --common, or score them on the same file.",
            )
        if same:
            rows[condition] = [{k: f[k] for k in same} for f in found]
    if not rows:
        raise BadInput(
            "The models have no question in common" + (f" ({left_out[0]})" if left_out else "") + "; score them alike."
        )
    return Aligned(rows, left_out)


def _conditions(model: ScoredModel, tasks: Sequence[str]) -> dict[Condition, dict[str, Row]]:
    found: dict[Condition, dict[str, Row]] = defaultdict(dict)
    subjects = {t.name for t in model.tasks if t.subjects}  # scored as one
    for r in model.rows:
        if r.get("order", 0) or (tasks and r["task"] not in tasks):
            continue
        group = "" if r["task"] in subjects else r.get("group") or ""
        c = Condition(r["task"], group, r["method"], r.get("shots", 0), r.get("chat", False), r["prompt"])
        if r["id"] in found[c]:
            raise BadInput(
                f"{model.name}: two rows for question {r['id']!r} of {c}; the folder is broken, score it again."
            )
        found[c][r["id"]] = r
    return dict(found)


def _spec(model: ScoredModel, task: str) -> TaskSpec | None:
    return next((t for t in model.tasks if t.name == task), None)


def _different_task(specs: Sequence[TaskSpec | None], names: Sequence[str]) -> str | None:
    """What differs between the models' settings of one task, prompts apart."""
    if not specs or specs[0] is None:
        return f"tasks.json of {names[0]} does not describe it"
    for spec, name in zip(specs[1:], names[1:]):
        if spec is None:
            return f"tasks.json of {name} does not describe it"
        if spec.version != specs[0].version:
            return f"{names[0]} was scored on version {specs[0].version}, {name} on version {spec.version}"
        if spec.split and specs[0].split and spec.split != specs[0].split:
            return f"{names[0]} was scored on split {specs[0].split}, {name} on {spec.split}"
        for what in ("reader", "fields", "where"):
            if getattr(spec, what) != getattr(specs[0], what):
                return f"{names[0]} and {name} were scored with another `{what}` of the task"
    return None


def _different_prompt(specs: Sequence[TaskSpec | None], names: Sequence[str], prompt: str) -> str | None:
    asked: list[PromptSpec | None] = [s.prompts.get(prompt) if s is not None else None for s in specs]
    for other, name in zip(asked[1:], names[1:]):
        if other != asked[0]:
            return f"the prompt is not the same text for {names[0]} and {name}"
    return None


def _different_rules(models: Sequence[ScoredModel], condition: Condition) -> str | None:
    first = models[0]
    for m in models[1:]:
        rules = first.rules.get(condition.method), m.rules.get(condition.method)
        if None not in rules and rules[0] != rules[1]:
            return f"{first.name} was scored with {rules[0]}, {m.name} with {rules[1]}"
    return None


def _same_question(models: Sequence[ScoredModel], rows: Sequence[Row]) -> bool:
    first = rows[0]
    if any(
        (r["options"], r["answer"], r["cluster"]) != (first["options"], first["answer"], first["cluster"])
        for r in rows[1:]
    ):
        return False
    key = (first["task"], first["id"])
    texts = [m.questions[key] for m in models if key in m.questions]
    asked = ("context", "question", "options", "answer")
    return all(all(t.get(f) == texts[0].get(f) for f in asked) for t in texts[1:])

"""`panda compare`: folders with rows -> comparison.json and the page."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.evaluate.compare import compare_models
from pandallm.evaluate.compare_align import ScoredModel, align
from pandallm.evaluate.spec import CompareSpec
from pandallm.store import digest_file, read_json, read_jsonl, write_json

NUMBERS = "comparison.json"
#: What a row must hold to be compared; the rest has defaults.
FIELDS = ("model", "task", "prompt", "method", "id", "cluster", "options", "answer", "choice", "correct")


@dataclass(frozen=True)
class Source:
    """One model's rows: the folder, the model's name within it, and its name in the comparison."""

    folder: Path
    model: str
    name: str


def compare_folders(
    sources: Sequence[str], spec: CompareSpec, out: Path, *, with_text: bool = True
) -> tuple[dict[str, Any], Path]:
    """Compare models; writes the page `out` and, beside it, comparison.json. Returns its content and the page's path.

    `sources`: folders of `panda eval --out` or of runs (every model in it), RUN:MODEL or RUN/models/MODEL (one of them).
    Raises BadInput for folders without rows, models that do not exist or may not be compared (see `compare_models`).
    """
    from pandallm.report.compare import write_compare_page

    chosen, models = read_models(sources)
    comparison = compare_models(models, spec)
    target = out.parent.resolve()
    stored = {
        "settings": spec.model_dump(mode="json"),
        "sources": [
            {
                "name": s.name,
                "folder": Path(os.path.relpath(s.folder.resolve(), target)).as_posix(),
                "model": s.model,
                "rows_sha256": digest_file(s.folder / "rows.jsonl"),
            }
            for s in chosen
        ],
        **comparison,
    }
    questions: dict[tuple[str, str], Mapping[str, Any]] = {}
    for m in models:
        questions |= m.questions
    asked = [(c._asdict(), rows) for c, rows in align(models, spec.tasks, spec.common).rows.items()]
    write_compare_page(stored, asked, questions, out, with_text=with_text)
    write_json(out.parent / NUMBERS, stored)
    return stored, out


def read_models(sources: Sequence[str]) -> tuple[list[Source], list[ScoredModel]]:
    """Every model that the arguments name, under names that differ: `folder:model`, and `#2` where even these repeat."""
    found: list[tuple[Path, str]] = []
    read: dict[Path, dict[str, list[Any]]] = {}
    for argument in sources:
        folder, wanted = _split(argument)
        if folder not in read:
            read[folder] = _read_rows(folder)
        names = list(read[folder])
        if wanted is not None and wanted not in names:
            raise BadInput(f"{folder} has no rows of model {wanted!r}; it has {', '.join(names)}.")
        for name in names if wanted is None else [wanted]:
            if (folder, name) in found:
                raise BadInput(f"{folder}: model {name!r} is named twice; name each model once.")
            found.append((folder, name))
    chosen = [Source(f, m, n) for (f, m), n in zip(found, _unique(found))]
    return chosen, [load_model_rows(s, read[s.folder][s.model]) for s in chosen]


def load_model_rows(source: Source, rows: Sequence[Any] | None = None) -> ScoredModel:
    """What the folder of `source` holds on its model. Raises BadInput for missing or broken files."""
    from pandallm.tasks.spec import TaskSpec

    folder = source.folder
    if rows is None:
        by_model = _read_rows(folder)
        if source.model not in by_model:
            raise BadInput(f"{folder} has no rows of model {source.model!r}; it has {', '.join(by_model)}.")
        rows = by_model[source.model]
    try:
        tasks = [TaskSpec.model_validate(t) for t in read_json(folder / "tasks.json")]
    except ValidationError as e:
        first = e.errors()[0]
        raise BadInput(f"{folder / 'tasks.json'}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    path = folder / "questions.jsonl"
    asked = {(r["task"], r["id"]) for r in rows}
    questions = {(q["task"], q["id"]): q for q in (read_jsonl(path) if path.is_file() else ())}
    rules, whole = _settings(folder)
    return ScoredModel(source.name, rows, tasks, {k: q for k, q in questions.items() if k in asked}, rules, whole)


def _split(argument: str) -> tuple[Path, str | None]:
    """(folder with rows.jsonl, model or None)."""
    path = Path(argument)
    if (path / "rows.jsonl").is_file():
        return path, None
    if path.parent.name == "models" and (path.parent.parent / "rows.jsonl").is_file():
        return path.parent.parent, path.name
    head, colon, tail = argument.rpartition(":")
    if colon and tail and (Path(head) / "rows.jsonl").is_file():
        return Path(head), tail
    what = "has no rows.jsonl" if path.is_dir() else "does not exist"
    raise BadInput(f"{argument} {what}; give a folder of `panda eval --out`, a run folder, or RUN:MODEL.")


def _read_rows(folder: Path) -> dict[str, list[Any]]:
    """model -> its rows, in file order."""
    path = folder / "rows.jsonl"
    by_model: dict[str, list[Any]] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        if not isinstance(row, dict) or (missing := [f for f in FIELDS if f not in row]):
            field = f"has no field {missing[0]!r}" if isinstance(row, dict) else "is no object"
            raise BadInput(f"{path}:{number}: the row {field}; score the model again.")
        if bool(row["correct"]) != (row["choice"] == row["answer"]):
            raise BadInput(
                f"{path}:{number}: question {row['id']!r} says correct={row['correct']} against its own choice."
            )
        by_model.setdefault(row["model"], []).append(row)
    if not by_model:
        raise BadInput(f"{path} holds no rows; score the model first.")
    return by_model


def _unique(found: Sequence[tuple[Path, str]]) -> list[str]:
    names = [model for _, model in found]
    often = Counter(names)
    names = [
        model
        if often[model] == 1
        else f"{folder.absolute().name}:{model}"
        if folder.absolute().name != model
        else model
        for folder, model in found
    ]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}#{seen[name]}"
    return names


def _settings(folder: Path) -> tuple[dict[str, str], frozenset[str]]:
    """(method -> how an answer was reached, methods that asked every question) by the settings beside the rows, if any.

    A recipe stores what differs from the defaults as well as the defaults; older folders lack newer fields.
    """
    import yaml

    for name, key in (("evaluate.yaml", None), ("recipe.yaml", "evaluate")):
        if (folder / name).is_file():
            settings = yaml.safe_load((folder / name).read_text(encoding="utf-8")) or {}
            settings = (settings.get(key) or {}) if key else settings
            limit = settings.get("limit") or {}
            whole = [m for m in ("likelihood", "generation") if limit.get(m) is None and limit.get("passages") is None]
            rules = {
                "likelihood": f"normalize: {settings.get('normalize', 'sum')}",
                "generation": f"max_new_tokens: {settings.get('max_new_tokens', 64)}",
            }
            return rules, frozenset(whole)
    return {}, frozenset()

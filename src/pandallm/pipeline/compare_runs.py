"""`panda report RUN RUN ..`: run folders -> runs.json and one page that sets the runs side by side."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.evaluate.compare_align import ScoredModel
from pandallm.evaluate.compare_runs import compare_bits, compare_questions, headline_levels, side_by_side
from pandallm.evaluate.spec import CompareSpec, EvaluateSpec
from pandallm.pipeline.compare import NUMBERS as COMPARISON
from pandallm.pipeline.compare import Source, _read_rows, load_model_rows
from pandallm.pipeline.diff import diff_recipes
from pandallm.recipe.load import VARIABLE, read_recipe
from pandallm.report.run import Run, read_run
from pandallm.store import digest_file, read_json, read_jsonl, write_json, write_text

if TYPE_CHECKING:
    from pandallm.recipe.spec import Recipe

NUMBERS = "runs.json"
#: Files of a run folder that numbers are made of; their digests stand in runs.json.
FILES = (
    "manifest.json",
    "recipe.yaml",
    "scores.json",
    "tasks.json",
    "questions.jsonl",
    "rows.jsonl",
    "bits_per_byte.jsonl",
)


@dataclass(frozen=True)
class FinishedRun:
    """One of the runs: its name among them, its files, its settings, and the rows of its last model."""

    name: str
    run: Run
    evaluate: EvaluateSpec
    model: ScoredModel
    bits: Sequence[Mapping[str, Any]]

    @property
    def last(self) -> str:
        """The model that stands for the run."""
        return self.run.models[-1]


def report_runs(folders: Sequence[Path], out: Path, *, with_links: bool = True) -> tuple[dict[str, Any], Path]:
    """Set finished runs side by side: writes the page `out` and, beside it, runs.json. Returns its content and the page's path.

    The others are compared with the first; of each run its last model counts. `with_links`: link the runs' own pages where there are some.
    Raises BadInput for a folder that is no finished run with scores, one given twice, and where nothing of the runs can be compared or shown.
    """
    from pandallm.report.runs import render_runs

    names = name_runs(folders)
    runs = [_read(folder, name) for folder, name in zip(folders, names)]
    target = out.parent.resolve()
    stored = {
        "settings": settings_of(runs).model_dump(mode="json"),
        "sources": [
            {"name": r.name, "folder": _relative(r.run.folder, target), "sha256": digests(r.run.folder)} for r in runs
        ],
        **compare_runs(runs),
    }
    page = render_runs(stored, [r.run for r in runs], _links(runs, target) if with_links else {})
    write_text(out, page)
    write_json(out.parent / NUMBERS, stored)
    return stored, out


def name_runs(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with as many of its parents' as tell it from the others. BadInput for one given twice."""
    parts = [f.resolve().parts for f in folders]
    for i, own in enumerate(parts):
        if own in parts[:i]:
            raise BadInput(f"{folders[i]} is given twice; name each run once.")
    names = []
    for own in parts:
        length = next(n for n in range(1, len(own) + 1) if sum(p[-n:] == own[-n:] for p in parts) == 1)
        names.append(Path(*own[-length:]).as_posix())
    return names


def read_runs(sources: Sequence[tuple[Path, str]]) -> list[FinishedRun]:
    """Runs by folder and name. Raises BadInput as `report_runs`."""
    return [_read(folder, name) for folder, name in sources]


def _read(folder: Path, name: str) -> FinishedRun:
    run = read_run(folder, questions=False)
    if not run.models:
        raise BadInput(f"{folder / 'scores.json'} names no model; finish the run with `panda run` first.")
    if missing := [n for n in ("recipe.yaml", "tasks.json", "rows.jsonl") if not (folder / n).is_file()]:
        raise BadInput(f"{folder} holds no {missing[0]}, so it is no finished run; make it again with `panda run`.")
    try:
        evaluate = EvaluateSpec.model_validate(run.recipe.get("evaluate"))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(["evaluate", *map(str, first["loc"])])
        raise BadInput(f"{folder / 'recipe.yaml'}: {where}: {first['msg']}.") from None
    last = run.models[-1]
    empty = (folder / "rows.jsonl").stat().st_size == 0  # a run that measures bits per byte alone
    rows = [] if empty else _read_rows(folder).get(last, [])
    path = folder / "bits_per_byte.jsonl"
    bits = [r for r in read_jsonl(path) if r.get("model") == last] if path.is_file() else []
    return FinishedRun(name, run, evaluate, load_model_rows(Source(folder, last, name), rows), bits)


def settings_of(runs: Sequence[FinishedRun]) -> CompareSpec:
    """How runs are compared: each with the first, on what all were asked, with the intervals that their own scores have."""
    levels = {float(r.run.scores.get("confidence", 0.95)) for r in runs}
    return CompareSpec(baseline=runs[0].name, common=True, confidence=levels.pop() if len(levels) == 1 else 0.95)


def compare_runs(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """The numbers of runs.json (see docs/report.md) but for its settings and sources.

    Raises BadInput where the runs share no question and have neither a headline nor bits per byte to show.
    """
    spec = settings_of(runs)
    definitions = [_definition(r) for r in runs]
    same = all(d == definitions[0] for d in definitions)
    headline, comparison, apart = compare_questions([r.model for r in runs], runs[0].evaluate if same else None, spec)
    entries = [_entry(r, d) for r, d in zip(runs, definitions)]
    bits = compare_bits([r.bits for r in runs], spec.confidence)
    if comparison is None and not bits and not any(e["headline"] for e in entries):
        raise BadInput(f"Nothing of these runs can be set side by side: {apart[0]['why']}")
    return {
        "confidence": spec.confidence,
        "runs": entries,
        "same_headline": same,
        "headline": headline,
        "comparison": comparison,
        "not_compared": apart,
        "table": side_by_side(
            [[row for row in r.run.scores.get("table") or [] if row["model"] == r.last] for r in runs]
        ),
        "bits_per_byte": bits,
        "stages": _stages([r.run for r in runs]),
        "recipes": _recipes(runs),
    }


def _definition(r: FinishedRun) -> dict[str, Any] | None:
    """What a run's headline is of, with how its questions were asked."""
    e = r.evaluate
    if e.headline is None:
        return None
    return {**e.headline.model_dump(mode="json"), "shots": e.shots[0], "chat": e.chat == "on"}


def _entry(r: FinishedRun, definition: Mapping[str, Any] | None) -> dict[str, Any]:
    manifest, scores = r.run.manifest, r.run.scores
    headline = (scores.get("headline") or {}).get(r.last)
    return {
        "name": r.name,
        "recipe": manifest.get("name"),
        "seed": manifest.get("seed"),
        "model": r.last,
        "models": r.run.models,
        "confidence": scores.get("confidence", 0.95),
        "headline": {**headline, **(headline_levels(r.model, r.last, r.evaluate) or {})} if headline else None,
        "headline_definition": definition,
        "started": manifest.get("started"),
        "work_seconds": manifest.get("work_seconds", manifest.get("seconds")),
        "peak_memory_gib": manifest.get("peak_memory_gib"),
        "machine": manifest.get("machine") or {},
        "versions": {"pandallm": manifest.get("pandallm"), **(manifest.get("versions") or {})},
    }


def _stages(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Per trained stage and run what it read and did; None where a run has no such stage."""
    found: dict[str, list[dict[str, Any] | None]] = {}
    for k, run in enumerate(runs):
        trained = {
            str(s["name"]).removeprefix("train "): s
            for s in run.manifest.get("stages") or []
            if s.get("kind") == "train"
        }
        for stage in dict.fromkeys([*run.packs, *trained]):
            record, ledger = trained.get(stage, {}), run.packs[stage].total if stage in run.packs else {}
            facts = record.get("facts") or {}
            found.setdefault(stage, [None] * len(runs))[k] = {
                **{name: ledger.get(name) for name in ("unique", "exposures", "passes")},
                "trained_tokens": facts.get("trained_tokens"),
                "steps": facts.get("steps"),
                "final_loss": facts.get("final_loss"),
                "seconds": record.get("made_in_seconds", record.get("seconds")),
            }
    return [{"stage": stage, "runs": entries} for stage, entries in found.items()]


def _recipes(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """What differs between each later run's recipe and the first's, as `panda diff` tells it; a sentence where that cannot be told."""
    entries = []
    for other in runs[1:]:
        entry: dict[str, Any] = {"run": other.name}
        try:
            found = diff_recipes(*(_recipe(r.run.folder) for r in (runs[0], other)))
        except BadInput as e:
            entries.append(entry | {"settings": [], "stages": [], "only_in_a": [], "why_not": str(e)})
            continue
        settings = [s for s in found["settings"] if not s["field"].startswith("paths")]  # of `_recipe`
        stages = [{"name": s["name"], "state": s["state"]} for s in found["stages"]]
        entries.append(
            entry | {"settings": settings, "stages": stages, "only_in_a": found["only_in_a"], "why_not": None}
        )
    return entries


def _recipe(folder: Path) -> "Recipe":
    """The recipe that a run folder keeps. Its paths are another machine's business and not kept: each stands for itself."""
    draft = read_recipe(str(folder / "recipe.yaml"))
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    paths = draft.data.setdefault("paths", {})
    for name in VARIABLE.findall(text):
        if name != "world":
            paths.setdefault(name, f"({name})")
    return draft.recipe()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of each file that numbers are made of, where it is there."""
    return {name: digest_file(folder / name) for name in FILES if (folder / name).is_file()}


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path.resolve(), start)).as_posix()


def _links(runs: Sequence[FinishedRun], target: Path) -> dict[str, str]:
    """Run -> its own page; "" -> the page of `panda compare` beside, where it is of these runs' rows."""
    links = {
        r.name: _relative(r.run.folder / "report.html", target)
        for r in runs
        if (r.run.folder / "report.html").is_file()
    }
    page, numbers = target / "compare.html", target / COMPARISON
    if page.is_file() and numbers.is_file():
        named = {(target / s["folder"]).resolve() for s in read_json(numbers).get("sources") or []}
        if all(r.run.folder.resolve() in named for r in runs):
            links[""] = page.name
    return links

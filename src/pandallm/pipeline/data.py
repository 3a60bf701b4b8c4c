"""`panda data`: the corpora and packs of a recipe, built or looked up, and added up again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.chat_forms import check_chat_templates
from pandallm.pipeline.corpora import close_engine, pack, source_files
from pandallm.pipeline.held_out import held_out
from pandallm.pipeline.run import Run
from pandallm.progress import SILENT, Progress
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest
from pandallm.store import Artifact, canonical_json, read_json

Json = dict[str, Any]


@dataclass
class DataRun(Run):
    """A run that ends with the data; the run folder stays as it is."""

    def _write_manifest(self, state: str) -> None:
        pass


@dataclass
class StoredRun(DataRun):
    """Looks stages up and makes none; BadInput says how to build what is missing. `build`: the command that does."""

    build: str = "panda data build"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.store.root.is_dir():
            raise BadInput(f"{self.store.root} does not exist, so no corpus was built yet; run `{self.build}` first.")

    def makes(self, kind: str) -> bool:
        return False

    def looked_up(self, name: str, kind: str, artifact: Artifact | None) -> Artifact:
        if artifact is None:
            what = {"clean": f"Corpus '{name.removeprefix('clean ')}'", "pack": f"The packs of stage '{name[5:]}'"}
            verb = "were" if kind == "pack" else "was"
            raise BadInput(
                f"{what.get(kind, name.capitalize())} {verb} not built yet with these settings and files; "
                f"run `{self.build}` first."
            )
        return artifact


def data_recipe(recipe: Recipe, corpora: Sequence[str] = ()) -> Recipe:
    """The recipe without evaluation and release; with `corpora`, these alone and no stages.

    Raises BadInput where there is no such corpus, or none at all.
    """
    if not recipe.corpora:
        raise BadInput(f"Recipe '{recipe.name}' has no corpora; add one under 'corpora'.")
    changes: Json = {"evaluate": None, "release": None}
    for name in corpora:
        if name not in recipe.corpora:
            raise BadInput(f"Recipe '{recipe.name}' has no corpus '{name}'.{nearest(name, sorted(recipe.corpora))}")
    if corpora:
        changes |= {"corpora": {n: c for n, c in recipe.corpora.items() if n in corpora}, "stages": {}}
    return recipe.model_copy(update=changes)


def build_data(recipe: Recipe, corpora: Sequence[str] = (), *, progress: Progress = SILENT, command: str = "") -> Json:
    """Build all corpora of a recipe and the packs of its stages; with `corpora` these alone, without packs.

    What the store holds already is taken from there. Returns {"name", "seed", "corpora": {name: {"folder", "reused",
    "seconds", "sources", "total" (the ledger), "contamination"}}, "packs": {stage: {"folder", "reused", .. as pack.json}}}.
    Raises BadInput before anything is written where a file, a benchmark or the base is missing.
    """
    job = DataRun(data_recipe(recipe, corpora), progress, command)
    with_packs = not corpora and bool(recipe.stages or recipe.base.scratch)
    if with_packs:
        job.check_inputs()
        if any(spec.chat_template != "none" for spec, _, _ in job.plans().values()):
            check_chat_templates(job.recipe, job.plans(), None if recipe.base.scratch else job.start()[0])
    else:
        for name, corpus in job.recipe.corpora.items():
            for source, spec in corpus.sources.items():
                if "${world}" not in canonical_json(spec.files):
                    source_files(job.recipe, name, source, job.recipe.paths)
    if not recipe.world:
        job.tasks()
    try:
        cleaned = {name: job.corpus(name) for name in job.recipe.corpora}
        packs = {}
        if with_packs:
            packs = {name: pack(job, name, spec, corpus) for name, (spec, corpus, _) in job.plans().items()}
            for stage, (settings, trained, _) in job.plans().items():
                held_out(job, stage, settings, trained)
    finally:
        close_engine(job)
    reused = {r.name: r.reused for r in job.records}
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "corpora": {
            name: {
                "folder": str(a.path),
                "reused": reused[f"clean {name}"],
                "seconds": a.manifest["seconds"],
                **read_json(a.path / "ledger.json"),
                "contamination": _contamination_totals(a.path),
            }
            for name, a in cleaned.items()
        },
        "packs": {
            name: {"folder": str(a.path), "reused": reused[f"pack {name}"], **read_json(a.path / "pack.json")}
            for name, a in packs.items()
        },
    }


def _contamination_totals(folder: Path) -> Json:
    """Task -> {"questions", "touched", "documents", "exclude"}: numbers of each; empty where nothing was compared."""
    path = folder / "contamination.json"
    if not path.is_file():
        return {}
    return {
        task: {**{k: entry[k] for k in ("questions", "touched", "documents")}, "exclude": len(entry["exclude"])}
        for task, entry in read_json(path)["tasks"].items()
    }


# Adding up again ------------------------------------------------------------------------------------------------------------------


def audit_recipe(recipe: Recipe, corpora: Sequence[str] = (), *, build: str = "panda data build") -> list[Json]:
    """Add up every ledger of a recipe from the files: see `audit_folder`. Packs that were not built are told as such.

    Raises BadInput where a corpus was not built yet.
    """
    job = StoredRun(data_recipe(recipe, corpora), build=build)
    found: list[Json] = []
    folders = {name: job.corpus(name).path for name in job.recipe.corpora}
    for name, folder in folders.items():
        found.append(audit_folder(folder, f"corpus {name}"))
    if corpora:
        return found
    for name, (spec, corpus, _) in job.plans().items():
        try:
            folder = pack(job, name, spec, corpus).path
        except BadInput:
            found.append({"what": f"packs {name}", "kind": "packs", "folder": None, "error": None})
            continue
        found.append(audit_folder(folder, f"packs {name}"))
    return found


def audit_folder(folder: Path, what: str = "") -> Json:
    """Add a cleaned corpus or packs up again from the files.

    Returns {"what", "kind": "corpus" or "packs", "folder", "error": None or a sentence that names the difference, "total": of the
    stored ledger, "sources": number}. Raises BadInput for any other folder.
    """
    from pandallm.data.ledger import audit_ledger

    audit: Callable[[Path], Any]
    if (folder / "pack.json").is_file():
        from pandallm.data.audit import audit_packs

        kind, stored, audit = "packs", read_json(folder / "pack.json")["ledger"], audit_packs
    elif (folder / "ledger.json").is_file():
        kind, stored, audit = "corpus", read_json(folder / "ledger.json"), audit_ledger
    else:
        if (folder / "manifest.json").is_file() and (folder / "ledgers").is_dir():
            raise BadInput(
                f"{folder} is a run folder, which holds copies of ledgers and not the data; name its recipe instead."
            )
        raise BadInput(
            f"{folder} holds neither ledger.json nor pack.json; name a recipe, or a folder that `panda data build` prints."
        )
    error = None
    try:
        audit(folder)
    except PandaError as e:
        error = str(e)
    return {
        "what": what or f"{kind} {_name_of(folder)}",
        "kind": kind,
        "folder": str(folder),
        "error": error,
        "total": stored["total"],
        "sources": len(stored["sources"]),
    }


def _name_of(folder: Path) -> str:
    """The corpus's name where the folder is the store's, else the folder's, shortened."""
    manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    return str((manifest.get("settings") or {}).get("name") or folder.name[:12])


# Contamination --------------------------------------------------------------------------------------------------------------------


def contamination_of_recipe(
    recipe: Recipe, corpora: Sequence[str] = (), *, build: str = "panda data build"
) -> dict[str, Json]:
    """Corpus -> the content of its contamination.json, of all corpora that are compared with benchmarks.

    Raises BadInput where none is, or where one was not built yet.
    """
    chosen = data_recipe(recipe, corpora)
    names = [n for n, c in chosen.corpora.items() if c.decontaminate and c.decontaminate.against]
    if not names:
        raise BadInput(
            f"No corpus of recipe '{recipe.name}' is compared with a benchmark; add decontaminate: {{against: [TASK]}} to one."
        )
    job = StoredRun(chosen, build=build)
    return {name: read_json(job.corpus(name).path / "contamination.json") for name in names}


def contamination_of_run(folder: Path) -> dict[str, Json]:
    """The same from a run folder, of the corpora that its stages read."""
    import yaml

    if not (folder / "manifest.json").is_file():
        raise BadInput(f"{folder} is no run folder: it holds no manifest.json; name a recipe or a folder below runs/.")
    settings = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8")) if (folder / "recipe.yaml").is_file() else {}
    trained = {s["corpus"] for s in (settings.get("stages") or {}).values()}
    if scratch := (settings.get("base") or {}).get("scratch"):
        trained.add(scratch["train"]["corpus"])
    found = {p.stem: read_json(p) for p in sorted((folder / "contamination").glob("*.json")) if p.stem in trained}
    if not found:
        raise BadInput(
            f"{folder} holds no contamination report: no corpus that it trained on was compared with a benchmark, or an "
            "earlier version made it; add decontaminate: {against: [TASK]} to a corpus and run again."
        )
    return found


def excluded(reports: Mapping[str, Json]) -> dict[str, list[str]]:
    """Task -> ids of the questions that a document of any corpus that is trained on touches, each once, in order."""
    ids: dict[str, dict[str, None]] = {}
    for report in reports.values():
        for task, entry in report["tasks"].items():
            ids.setdefault(task, {}).update(dict.fromkeys(entry["exclude"]))
    return {task: list(questions) for task, questions in ids.items()}


def clean_scores(folder: Path, exclude: Mapping[str, Sequence[str]]) -> Json:
    """The scores of a run on all questions and on the clean ones: every row of the run's table on tasks of `exclude`.

    {"confidence", "table": [{"model", "task", "group", "prompt", "method", "shots", "chat", "all": {"accuracy", "low", "high", "n"},
    "clean": the same or None where no clean question is left}]}; empty table for a run without evaluation. Intervals are those of
    the run, clustered.
    """
    import yaml

    from pandallm.evaluate.spec import EvaluateSpec
    from pandallm.evaluate.summary import summarize
    from pandallm.pipeline.run_folder import read_lines
    from pandallm.tasks.spec import TaskSpec
    from pandallm.tasks.types import Question

    if not (folder / "scores.json").is_file():
        return {"confidence": None, "table": []}
    settings = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    spec = EvaluateSpec.model_validate(settings["evaluate"]).model_copy(update={"headline": None, "controls": {}})
    rows = [r for r in read_lines(folder / "rows.jsonl") if r["task"] in exclude and not r.get("order")]
    tasks = [t for t in map(TaskSpec.model_validate, read_json(folder / "tasks.json")) if t.name in exclude]
    asked = [(r["task"], r["id"]) for r in rows]
    empty: Json = {"context": "", "question": "", "options": ()}
    questions = [
        Question(task=r["task"], id=r["id"], cluster=r["cluster"], group=r["group"], answer=r["answer"], **empty)
        for r in {(r["task"], r["id"]): r for r in rows}.values()
    ]
    touched = {(task, question) for task, ids in exclude.items() for question in ids}
    clean = [r for r, key in zip(rows, asked, strict=True) if key not in touched]

    def table(of: Sequence[Json]) -> dict[tuple[Any, ...], Json]:
        return {_cell(r): r for r in summarize(of, [], questions, tasks, spec)["table"]} if of else {}

    def score(row: Json | None) -> Json | None:
        return row and {k: row[k] for k in ("accuracy", "low", "high", "n")}

    whole, left = table(rows), table(clean)
    return {
        "confidence": spec.confidence,
        "table": [
            {**dict(zip(_CELL, key, strict=True)), "all": score(row), "clean": score(left.get(key))}
            for key, row in whole.items()
        ],
    }


_CELL = ("model", "task", "group", "prompt", "method", "shots", "chat")


def _cell(row: Json) -> tuple[Any, ...]:
    return tuple(row[name] for name in _CELL)

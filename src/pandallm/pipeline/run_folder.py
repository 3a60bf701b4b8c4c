"""Write what a run shows into its folder: small files, copied; models, linked."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pandallm.store import Artifact, read_jsonl, write_bytes, write_json, write_jsonl, write_text
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run


def write_run_folder(
    run: "Run",
    packs: Mapping[str, Artifact],
    models: Mapping[str, tuple[Path, str]],
    evaluations: Mapping[tuple[str, str], Artifact],
    delta: Artifact | None,
) -> dict[str, Any]:
    """Fill the run folder by the contract in docs/design.md. Returns scores.json."""
    from pandallm.evaluate.summary import summarize
    from pandallm.pipeline.plan.actual import PLAN_FILE, compared
    from pandallm.pipeline.run import link_folder

    folder = run.folder
    settings = run.recipe.model_dump(mode="json", by_alias=True, exclude={"runtime", "paths"}, exclude_none=True)
    write_text(folder / "recipe.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    for name, artifact in packs.items():
        copy(artifact.path / "pack.json", folder / "ledgers" / f"pack-{name}.json")
    for record in run.records:
        if record.kind == "clean":
            corpus = record.name.removeprefix("clean ")
            copy(record.artifact.path / "ledger.json", folder / "ledgers" / f"{corpus}.json")
            if (found := record.artifact.path / "contamination.json").is_file():
                copy(found, folder / "contamination" / f"{corpus}.json")
        elif record.kind == "train":
            copy(
                record.artifact.path / "logs" / "metrics.jsonl",
                folder / "metrics" / f"{record.name.removeprefix('train ')}.jsonl",
            )
            if (found := record.artifact.path / "adapter").is_dir():
                link_folder(found, folder / "adapters" / record.name.removeprefix("train "))
            if (found := record.artifact.path / "logs" / "held_out.jsonl").is_file():
                copy(found, folder / "held_out" / f"{record.name.removeprefix('train ')}.jsonl")
    stages = compared([record.to_json() for record in run.records], folder)
    write_json(folder / PLAN_FILE, {"stages": stages})
    for name, (path, _) in models.items():
        link_folder(path, folder / "models" / name)
    if delta:
        write_json(folder / "delta.json", delta.manifest["facts"])
        link_folder(delta.path / "delta", folder / "delta")
    e = run.recipe.evaluate
    if e is None:
        return {}
    rows = [row for a in evaluations.values() for row in read_lines(a.path / "rows.jsonl")]
    bits = [row for a in evaluations.values() for row in read_lines(a.path / "bits_per_byte.jsonl")]
    write_jsonl(folder / "rows.jsonl", rows)
    write_parquet(folder / "rows.parquet", rows)
    write_jsonl(folder / "bits_per_byte.jsonl", bits)
    tasks = [run.tasks()[name] for name in e.tasks]
    questions = write_questions(folder, tasks, rows)
    scores = summarize(rows, bits, questions, [task for task, _ in tasks], e)
    write_json(folder / "scores.json", scores)
    return scores


def write_questions(
    folder: Path, tasks: Sequence[tuple[TaskSpec, Sequence[Question]]], rows: Sequence[Mapping[str, Any]]
) -> list[Question]:
    """Write tasks.json and questions.jsonl: what the rows were asked. Returns the scored questions."""
    scored = {(row["task"], row["id"]) for row in rows}
    questions = [q for _, qs in tasks for q in qs if (q.task, q.id) in scored]
    write_jsonl(folder / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for q in questions])
    write_json(folder / "tasks.json", [task.model_dump(mode="json", exclude={"files"}) for task, _ in tasks])
    return questions


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a Parquet table, a column per field; `choices` is a struct. Whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, yes = pa.string(), pa.int32(), pa.bool_()
    scores = pa.list_(pa.float64())
    ways = pa.struct([(way, number) for way in ("sum", "characters", "bytes", "unconditional")])
    schema = pa.schema(
        [
            *[(name, text) for name in ("model", "task", "prompt", "method")],
            ("shots", number),
            ("chat", yes),
            ("order", number),
            *[(name, text) for name in ("id", "cluster", "group")],
            *[(name, number) for name in ("options", "answer", "choice")],
            ("correct", yes),
            ("scores", scores),
            ("unconditional", scores),
            ("choices", ways),
            ("near_tie", yes),
            ("truncated", yes),
            ("completion", text),
            ("choice_2023", number),
        ]
    )
    table = pa.Table.from_pylist([{name: r.get(name) for name in schema.names} for r in rows], schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def read_lines(path: Path) -> list[Any]:
    return list(read_jsonl(path)) if path.is_file() else []

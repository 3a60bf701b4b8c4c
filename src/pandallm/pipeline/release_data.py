"""`panda release RUN --data` (or RECIPE): cleaned corpora and instructions as Parquet, as far as each source's declared licence allows it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.pipeline.data import build_data
from pandallm.pipeline.machine import machine, versions
from pandallm.pipeline.release_folder import FinishedRun, finish, heading, open_run, write_settings
from pandallm.pipeline.verify_release import verify_release
from pandallm.progress import SILENT, Progress
from pandallm.recipe.spec import Recipe
from pandallm.release.bundle import RELEASE, RUN
from pandallm.release.container import check_disk, refuse_existing, staged
from pandallm.release.data_card import sources_of, split_sources, stated_licence
from pandallm.release.licences import licence
from pandallm.store import canonical_json, read_json, write_json

PARTS = ("examples", "held_out")
#: Of the cleaned corpus; `record_bytes` is bookkeeping of the ledger.
COLUMNS = ("id", "source", "language", "turns", "utf8_bytes", "quality")


def corpora_of(run: FinishedRun) -> dict[str, Path]:
    """The cleaned corpora of a run, by name: folders of the store that its models lie in."""
    stages = run.stage("clean")
    if not stages:
        raise BadInput(f"The run in {run.folder} cleaned no corpus, so there is no data to release.")
    links = [p for p in (run.folder / "models").glob("*") if p.is_symlink()]
    roots = {p.resolve().parents[1] for p in links if p.exists()}
    found = {}
    for stage in stages:
        name = stage["name"].removeprefix("clean ")
        path = next((r / stage["key"] for r in roots if (r / stage["key"] / "ledger.json").is_file()), None)
        if path is None:
            raise BadInput(
                f"The cleaned corpus '{name}' of {run.folder} is not in the store that its models link to; "
                "run the recipe again with the same store."
            )
        found[name] = path
    return found


def release_data(folder: Path, out: Path | None = None, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Write the cleaned corpora of the run in `folder` to `out` (RUN/release-data when left out), which must not exist.

    Returns {"out", "kind", "publish_as", "rows", "published": {corpus: {source: why}}, "left_out": the same, "bytes", "files", "checked"}.
    Raises BadInput where the run is not finished, its corpora are gone, or `out` exists.
    """
    run = open_run(folder)
    out = out or folder / "release-data"
    refuse_existing(out)
    return _write(run, corpora_of(run), out, progress)


def release_recipe_data(recipe: Recipe, out: Path, *, progress: Progress = SILENT) -> dict[str, Any]:
    """The same for a recipe's corpora without a run: built now, or taken from the store."""
    refuse_existing(out)
    started = time.gmtime()
    built = build_data(recipe, tuple(recipe.corpora), progress=progress)
    corpora = {name: Path(facts["folder"]) for name, facts in built["corpora"].items()}
    manifest = {
        "name": recipe.name,
        "seed": recipe.seed,
        "state": "complete",
        "pandallm": __version__,
        "versions": versions(),
        "machine": machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        "work_seconds": round(sum(facts["seconds"] for facts in built["corpora"].values()), 1),
        "stages": [{"name": f"clean {name}", "kind": "clean", "key": path.name} for name, path in corpora.items()],
    }
    settings = recipe.model_dump(mode="json", by_alias=True, exclude={"runtime", "paths"}, exclude_none=True)
    return _write(FinishedRun(out, manifest, settings), corpora, out, progress)


def _write(run: FinishedRun, corpora: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    ledgers = {name: read_json(path / "ledger.json") for name, path in corpora.items()}
    published, left_out = split_sources(run.recipe, ledgers)
    check_disk(out, sum(p.stat().st_size for path in corpora.values() for p in path.rglob("*.parquet")) + 50_000_000)
    with staged(out, canonical_json({"release": str(out.absolute()), "at": time.time()})) as part:
        write_settings(run, part / RUN)
        for name, path in corpora.items():
            write_json(part / RUN / "ledgers" / f"{name}.json", ledgers[name])
            if (path / "contamination.json").is_file():
                write_json(part / RUN / "contamination" / f"{name}.json", read_json(path / "contamination.json"))
        rows = {
            name: {p: _write_part(path, name, p, published.get(name, {}), part, progress) for p in PARTS}
            for name, path in corpora.items()
        }
        entries = [_entries(run, ledgers, found) for found in (published, left_out)]
        names = {licence(e["licence"]).name for found in entries[0].values() for e in found.values()}
        same = next(iter(names)) if len(names) == 1 else ""
        known = same if licence(same).kind != "unknown" else ""
        release = {
            **heading(run, run.spec(), "data"),
            "publish_as": known or ("by source" if len(names) > 1 else ""),
            "rows": rows,
            "published": entries[0],
            "left_out": entries[1],
        }
        write_json(part / RELEASE, release)
        finish(part)
        checked = verify_release(part, progress=progress)
    return {
        "out": str(out),
        "kind": "data",
        "publish_as": release["publish_as"] or "not stated",
        "rows": checked["rows"],
        "published": published,
        "left_out": left_out,
        "bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        "files": checked["files"],
        "checked": checked["checked"],
    }


def _entries(
    run: FinishedRun, ledgers: Mapping[str, Any], found: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        corpus: {
            source: {
                "licence": stated_licence(run.recipe, sources_of(run.recipe, corpus).get(source, {})),
                "why": why,
                "examples": ledgers[corpus]["sources"][source]["kept"]["records"],
                "held_out": ledgers[corpus]["sources"][source]["held_out"]["records"],
            }
            for source, why in sources.items()
        }
        for corpus, sources in found.items()
    }


def _write_part(corpus: Path, name: str, part: str, published: Mapping[str, str], out: Path, progress: Progress) -> int:
    """Rows of published sources, a file for each file of the corpus, streamed; returns their number."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pandallm.data.corpus import part_batches, part_rows

    total, pending, number = 0, list[Any](), 0
    allowed = pa.array(sorted(published), pa.string())

    def write() -> None:
        nonlocal number, total
        rows = sum(b.num_rows for b in pending)
        if rows:
            path = out / name / part / f"{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_batches(pending), path, compression="zstd", row_group_size=8192)
            number += 1
        total += rows
        pending.clear()

    held = 0
    with progress.task(f"{name}: {part}", part_rows(corpus, part), "rows") as task:
        for batch in part_batches(corpus, part):
            task.advance(batch.num_rows)
            kept = batch.filter(pc.is_in(batch.column("source"), value_set=allowed))
            kept = kept.select([c for c in COLUMNS if c in kept.schema.names])
            if kept.num_rows:
                pending.append(kept)
                held += kept.nbytes
            if held >= 64_000_000:  # so that memory does not grow with the corpus
                write()
                held = 0
        write()
    return total

"""Rebuild a comparison's numbers from the rows it names."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.compare import compare_models
from pandallm.evaluate.spec import CompareSpec
from pandallm.pipeline.compare import NUMBERS, Source, load_model_rows
from pandallm.pipeline.compare_runs import NUMBERS as RUNS
from pandallm.pipeline.verify import compare, verify_run
from pandallm.pipeline.verify_runs import verify_runs
from pandallm.store import digest_file, read_json


def verify_folder(path: Path) -> dict[str, Any]:
    """What `panda verify` does: a folder's scores, its comparison, its runs side by side, whatever of these it holds; of a page, what lies
    beside it. Returns {"rows", "numbers"}.

    Raises what `verify_run`, `verify_comparison` and `verify_runs` raise.
    """
    if path.is_file() and path.suffix == ".html":
        path = path.parent
    if path.is_file():
        return verify_runs(path) if path.name == RUNS else verify_comparison(path)
    done = []
    if (path / NUMBERS).is_file():
        done.append(verify_comparison(path))
    if (path / RUNS).is_file():
        done.append(verify_runs(path / RUNS))
    if not done or (path / "scores.json").is_file():
        done.append(verify_run(path))
    return {key: sum(facts[key] for facts in done) for key in ("rows", "numbers")}


def verify_comparison(path: Path) -> dict[str, Any]:
    """Compare comparison.json (or the folder that holds it) with what the rows it names give now.

    Returns {"rows", "numbers"}. Raises BadInput where the file or a folder that it names is missing or broken, PandaError where rows have
    changed or a stored number is not what they give; names the first.
    """
    path = path / NUMBERS if path.is_dir() else path
    stored = read_json(path)
    try:
        spec = CompareSpec.model_validate(stored.pop("settings"))
        named = stored.pop("sources")
        sources = [Source(path.parent / s["folder"], s["model"], s["name"]) for s in named]
    except (KeyError, TypeError, AttributeError, ValidationError):
        raise BadInput(f"{path} is not what `panda compare` writes; compare the models again.") from None
    for source, entry in zip(sources, named):
        rows = source.folder / "rows.jsonl"
        if not rows.is_file():
            raise BadInput(f"{path} was made from {rows}, which does not exist; keep both where they were.")
        if digest_file(rows) != entry["rows_sha256"]:
            raise PandaError(f"{rows} has changed since {path} was made; compare the models again.")
    models = [load_model_rows(s) for s in sources]
    numbers = compare(stored, compare_models(models, spec), NUMBERS)
    return {"rows": sum(len(m.rows) for m in models), "numbers": numbers}

"""Check a release folder: sums, pages against the files they were written from, scores against rows, delta against its base."""

from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.model.folder import first_line
from pandallm.pipeline.verify import compare
from pandallm.progress import SILENT, Progress
from pandallm.release.bundle import PAGES_VERSION, RELEASE, RUN, check_sums, pages, read_recipe, read_release
from pandallm.release.weights import is_plain_name
from pandallm.store import read_json, read_jsonl


def is_release(folder: Path) -> bool:
    """Whether this is a folder that `panda release` wrote."""
    return (folder / RELEASE).is_file() and (folder / RUN).is_dir()


def verify_release(folder: Path, base: Path | None = None, progress: Progress = SILENT) -> dict[str, Any]:
    """Check everything a release folder says of itself.

    base: the base's folder; with it a delta is applied (nothing is written) and every hash compared.

    Returns {"kind", "files" (with right sums), "pages" (written again, equal), "numbers", "rows" (scores rebuilt from
    so many rows; of data: rows counted), "checked": [sentences]}.
    Raises BadInput where `folder` is no release, PandaError with the first thing that is not as it should be.
    """
    release = read_release(folder)
    files = check_sums(folder, progress)
    try:
        return _verify(folder, release, files, base, progress)
    except (KeyError, TypeError, AttributeError, ValueError) as e:  # of pydantic and pyarrow too
        said = f"{type(e).__name__}: {first_line(e)}"
        raise PandaError(
            f"{folder} is not sound: {RELEASE} or a file below {RUN}/ cannot be read ({said}); get it again."
        ) from e


def _verify(folder: Path, release: dict[str, Any], files: int, base: Path | None, progress: Progress) -> dict[str, Any]:
    checked = [f"{files} files have the sha256 of SHA256SUMS."]
    numbers = rows = written = 0
    if release.get("pages_version") == PAGES_VERSION:
        for name, page in pages(folder).items():
            _same_page(folder / name, page)
            written += 1
        checked.append(f"{written} pages say what the files below {RUN}/ say.")
    else:
        checked.append(
            f"The pages were written by pandallm {release.get('pandallm')} in another form; they were not compared."
        )
    if release["kind"] == "data":
        rows = _check_rows(folder, release)
        checked.append(f"{rows:,} rows, as many of each source as the ledgers say were kept and held out.")
    elif (folder / RUN / "scores.json").is_file():
        rows, numbers = _check_scores(folder / RUN)
        checked.append(f"{numbers} numbers of scores.json rebuilt from {rows:,} rows, all equal.")
    delta = ""
    if release["kind"] == "model" and release["ship"] == "delta":
        delta = _check_delta(folder, release, base, progress)
        checked.append(delta)
    elif base is not None:
        raise BadInput(f"--base: {folder} holds no delta, so there is nothing to apply; leave it out.")
    elif release["kind"] == "model":
        checked.append(_check_weights(folder, release))
    return {
        "kind": release["kind"],
        "files": files,
        "pages": written,
        "rows": rows,
        "numbers": numbers,
        "checked": checked,
    }


def _same_page(path: Path, page: str) -> None:
    if not path.is_file():
        raise PandaError(f"{path} is missing; write the release again.")
    have, want = path.read_text(encoding="utf-8").splitlines(), page.splitlines()
    if have == want:
        return
    number = next((i for i, (a, b) in enumerate(zip(have, want), 1) if a != b), min(len(have), len(want)) + 1)
    line = have[number - 1] if number <= len(have) else "(end of the page)"
    other = want[number - 1] if number <= len(want) else "(end of the page)"
    raise PandaError(f"{path}:{number} says {line[:200]!r}, but the files below {RUN}/ give {other[:200]!r}.")


def _check_scores(run: Path) -> tuple[int, int]:
    """(rows, numbers): scores.json computed again from the rows. Texts of questions are not published, so what each
    answer was is not decided again; `panda verify` of the run folder does that."""
    from pandallm.evaluate.spec import EvaluateSpec
    from pandallm.evaluate.summary import summarize
    from pandallm.tasks.spec import TaskSpec
    from pandallm.tasks.types import Question

    spec = EvaluateSpec.model_validate(read_recipe(run)["evaluate"])
    rows, bits = list(read_jsonl(run / "rows.jsonl")), list(read_jsonl(run / "bits_per_byte.jsonl"))
    for number, row in enumerate(rows, 1):
        if row["correct"] != (row["choice"] == row["answer"]):
            raise PandaError(f"{run / 'rows.jsonl'}:{number} says correct={row['correct']} against its own choice.")
    questions = [Question(**{**q, "options": tuple(q["options"])}) for q in read_jsonl(run / "questions.jsonl")]
    tasks = [TaskSpec.model_validate(task) for task in read_json(run / "tasks.json")]
    return len(rows), compare(
        read_json(run / "scores.json"), summarize(rows, bits, questions, tasks, spec), "scores.json"
    )


def _check_delta(folder: Path, release: dict[str, Any], base: Path | None, progress: Progress) -> str:
    from pandallm.release.apply import Application
    from pandallm.release.delta import inspect_delta

    facts = inspect_delta(folder)
    for name in ("target_root", "base_root"):
        if facts[name] != release["delta"][name]:
            raise PandaError(f"The delta's {name} is not the one that release.json names; get the release again.")
    if base is None:
        of = release["base"]
        known = f", {of['hub_id']}{'@' + of['revision'] if of.get('revision') else ''}" if of.get("hub_id") else ""
        return f"The delta was not applied; name the base{known} with --base."
    work = Application(base, folder)
    work.check(progress)
    with progress.task("apply delta", work.manifest.target_bytes / 1e6, "MB") as task:
        for name in work.manifest.files:
            for data in work.restore(name):
                task.advance(len(data) / 1e6)
    return f"The delta gives {facts['tensors']} tensors back, every sha256 equal."


def _check_weights(folder: Path, release: dict[str, Any]) -> str:
    from pandallm.release.weights import open_model, tensor_digest
    from pandallm.store import digest_json

    model = open_model(folder, "Release")
    root = digest_json({name: tensor_digest(t) for name, t in model.tensors.items()})
    if root != release["weights_root"]:
        raise PandaError(
            f"The weights in {folder} are not those of the run (their root differs); get the release again."
        )
    return f"{len(model.tensors)} tensors are those that the run made."


def _check_rows(folder: Path, release: dict[str, Any]) -> int:
    import pyarrow.parquet as pq

    total = 0
    for corpus, found in release["published"].items():
        if not is_plain_name(corpus):
            raise PandaError(f"{folder / RELEASE} names the corpus {corpus!r}, which cannot be; do not use it.")
        ledger = read_json(folder / RUN / "ledgers" / f"{corpus}.json")
        for part, fate in (("examples", "kept"), ("held_out", "held_out")):
            counts: dict[str, int] = {}
            for path in sorted((folder / corpus / part).glob("*.parquet")):
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(65_536, columns=["source"]):
                        for entry in batch.column(0).value_counts().to_pylist():
                            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
            need = {s: n for s in found if (n := ledger["sources"][s][fate]["records"])}
            if counts != need:
                source = next(s for s in sorted({*counts, *need}) if counts.get(s) != need.get(s))
                raise PandaError(
                    f"{folder / corpus / part} holds {counts.get(source, 0)} rows of {source}, the ledger says {need.get(source, 0)}."
                )
            total += sum(counts.values())
    return total

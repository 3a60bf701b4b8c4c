"""Data sets of the Hugging Face hub, by id, as local files that the readers of this room know."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from pandallm.data.files import file_format
from pandallm.data.spec import DatasetSpec
from pandallm.errors import BadInput

T = TypeVar("T")

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class DatasetFiles:
    """Where a data set lies on this machine. revision: the commit that was read; None for a local folder."""

    files: tuple[Path, ...]
    revision: str | None


def dataset_files(spec: DatasetSpec, where: str) -> DatasetFiles:
    """The local files of a data set, fetched where the cache lacks them.

    With `files`, those files of the repository as they stand; else the split as `datasets` reads it (Arrow files in its cache;
    needs pandallm[datasets]). HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and `hf auth login` count as they do for those libraries. No
    code of a repository is run. Raises BadInput naming `where` when it cannot be had.
    """
    return _raw_files(spec, where) if spec.files else _split(spec, where)


def _at(spec: DatasetSpec) -> str:
    return f"data set {spec.id}" + (f" (revision {spec.revision})" if spec.revision else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _asking(spec: DatasetSpec, where: str, ask: Callable[[], T]) -> T:
    """`ask()`, whatever the libraries raise told in a sentence."""
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError:
        raise BadInput(
            f"{where}: {_at(spec)} is gated: accept its licence on huggingface.co, then run `hf auth login`."
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{where}: data set {spec.id} has no revision {spec.revision}.") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"{where}: {_at(spec)} is not on the hub, or is private: check the id, or run `hf auth login`."
        ) from None
    except FileNotFoundError as e:
        raise BadInput(f"{where}: {_at(spec)} holds no data ({_first_line(e)}); check id, config and split.") from None
    except (errors.HfHubHTTPError, OSError) as e:
        raise BadInput(
            f"{where}: {_at(spec)} could not be fetched ({_first_line(e)}); check the connection, set HF_ENDPOINT to a "
            "mirror, or give a local folder."
        ) from None


def _raw_files(spec: DatasetSpec, where: str) -> DatasetFiles:
    patterns = [spec.files] if isinstance(spec.files, str) else list(spec.files)
    folder, revision = Path(spec.id), None
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(
            _asking(
                spec,
                where,
                lambda: snapshot_download(
                    spec.id, repo_type="dataset", revision=spec.revision, allow_patterns=patterns
                ),
            )
        )
        revision = folder.name if _COMMIT.fullmatch(folder.name) else spec.revision
    names = {p: p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()}
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names.values()):
            raise BadInput(f"{where}.files: {pattern} matches no file of {_at(spec)}; look at its files on the hub.")
    files = [p for p, name in names.items() if any(fnmatch(name, pattern) for pattern in patterns)]
    for path in files:
        if file_format(path) is None:
            raise BadInput(
                f"{where}.files: {names[path]} of {_at(spec)} is of no known format; narrow the pattern down."
            )
    return DatasetFiles(tuple(files), revision)


def _split(spec: DatasetSpec, where: str) -> DatasetFiles:
    try:
        import datasets
    except ImportError:
        raise BadInput(
            f"{where}: data sets by id need the library datasets; pip install 'pandallm[datasets]', or name the "
            "repository's files with `files` beside `id`."
        ) from None
    if "[" in spec.split:
        raise BadInput(f"{where}.split: {spec.split} is a part of a split; take it whole and set max_records.")

    def load() -> Any:
        try:
            return datasets.load_dataset(spec.id, spec.config, split=spec.split, revision=spec.revision)
        except RuntimeError as e:
            if "script" in str(e):
                raise BadInput(
                    f"{where}: {_at(spec)} is read by code of its own, which is not run; name its files instead: "
                    f"{{id: {spec.id}, files: '*.jsonl'}}."
                ) from None
            raise BadInput(f"{where}: {_at(spec)} could not be read ({_first_line(e)}).") from None
        except (ValueError, datasets.exceptions.DatasetGenerationError) as e:
            cause = e.__cause__ if isinstance(e.__cause__, Exception) else e
            raise BadInput(
                f"{where}: {_at(spec)} could not be read ({_first_line(cause)}); check config and split, or name its "
                "files with `files` beside `id`."
            ) from None

    loaded = _asking(spec, where, load)
    files = tuple(Path(entry["filename"]) for entry in loaded.cache_files)
    if not files:
        raise BadInput(f"{where}: split {spec.split} of {_at(spec)} is empty.")
    local = Path(spec.id).is_dir()
    # datasets keeps a split in a folder named by the commit that it comes from.
    commit = files[0].parent.name
    return DatasetFiles(files, None if local else commit if _COMMIT.fullmatch(commit) else spec.revision)

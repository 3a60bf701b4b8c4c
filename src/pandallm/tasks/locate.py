"""Where a task's files are: a local folder, the cache, or the address that the task names."""

import glob
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pandallm.errors import BadInput
from pandallm.store import digest_file, digest_json
from pandallm.tasks.spec import TaskSpec

COMPRESSIONS = ("", ".gz", ".zst")
ENDINGS = (".json", ".jsonl", ".txt", ".csv", ".parquet")
TIMEOUT = 60  # seconds without an answer


def cache_folder() -> Path:
    """$PANDA_TASKS, or `pandallm/tasks` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    if given := os.environ.get("PANDA_TASKS"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pandallm" / "tasks"


def locate(task: TaskSpec, data: str | Path | None = None, download: bool = False) -> list[Path]:
    """The files of the task's split, sorted.

    `data` is a file, a glob (both taken as they are) or a folder, searched below for the published names. Without it:
    the task's own `files`, then the cache, then, if `download`, the task's address. A folder of a task that has no
    published names gives all its question files.

    Raises BadInput where nothing is found, with how to get it; where a folder lacks some of the files; where a
    download fails or is not what was pinned.
    """
    if data is not None and str(data):
        return _given(task, str(data))
    if task.files and "${" not in task.files:
        return _given(task, task.files)
    if files := find(task, [cache_folder() / task.name]):
        return files
    if download and (task.urls.get(task.split) or task.hub):
        return _download(task)
    raise BadInput(f"The {_what(task)} is not here; {how_to_get(task)}.")


def find(task: TaskSpec, folders: Sequence[Path]) -> list[Path]:
    """The files of the task's split below the first of `folders` that has any; [] where none has.

    Raises BadInput where a folder has some of the files that belong together, but not all.
    """
    for folder in folders:
        present = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _hidden(p.relative_to(folder))]
        for pattern in task.patterns.get(task.split, ()):
            parts = pattern.split("|")
            found = [_matches(present, part) for part in parts]
            if any(found):
                missing = [part for part, files in zip(parts, found) if not files]
                if missing:
                    raise BadInput(f"{folder} has only some of the files of {_what(task)}; {missing[0]} is missing.")
                return sorted({path for files in found for path in files})
    return []


def split_of(task: TaskSpec, files: Sequence[Path]) -> str:
    """The split whose published names all these files have; "" where they tell nothing."""
    for split, patterns in task.patterns.items():
        parts = [part for pattern in patterns for part in pattern.split("|")]
        if files and all(any(_matches([f], part) for part in parts) for f in files):
            return split
    return ""


def with_split_of(task: TaskSpec, files: Sequence[Path]) -> TaskSpec:
    """The task with the split that its files' names tell: what was read, not what was asked for."""
    return task.model_copy(update={"split": split_of(task, files)}) if task.patterns else task


def digest_of(files: Sequence[Path]) -> str:
    """The file's sha256; of several files the sha256 of their names and digests."""
    if len(files) == 1:
        return digest_file(files[0])
    return digest_json(sorted([path.name, digest_file(path)] for path in files))


def how_to_get(task: TaskSpec) -> str:
    """What a user does to get the files, for messages."""
    if not task.patterns:
        return f"give its file with --data ({task.source or 'see the task'})"
    names = " or ".join(p if "|" not in p else p.replace("|", ", ") for p in task.patterns.get(task.split, ())[-2:])
    fetch = "fetch it with --download, or " if task.urls.get(task.split) or task.hub else ""
    return f"{fetch}put {names} into a folder and name it with --data; source: {task.source}"


def _what(task: TaskSpec) -> str:
    return f"{task.split} split of {task.name}" if task.split else f"data of {task.name}"


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _matches(paths: Sequence[Path], pattern: str) -> list[Path]:
    """Paths that end as the pattern says, uncompressed before compressed, so that no copy is read twice."""
    for ending in COMPRESSIONS:
        if found := [p for p in paths if p.match(pattern + ending)]:
            return found
    return []


def _given(task: TaskSpec, data: str) -> list[Path]:
    path = Path(data).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not files:
            raise BadInput(f"{data} (for task {task.name}) matches no file; check the path.")
        return files
    if not task.patterns:
        files = [
            p
            for p in sorted(path.rglob("*"))
            if p.is_file()
            and not _hidden(p.relative_to(path))
            and p.name.removesuffix(".gz").removesuffix(".zst").endswith(ENDINGS)
        ]
        if not files:
            raise BadInput(f"{data} has no question files for task {task.name} ({', '.join(ENDINGS)}).")
        return files
    if files := find(task, [path]):
        return files
    others = [s for s in task.patterns if s != task.split and find(task.model_copy(update={"split": s}), [path])]
    hint = f" It has the {others[0]} split: use --tasks {task.name}:{others[0]}." if others else ""
    how = how_to_get(task)
    raise BadInput(f"{data} does not have the {_what(task)}.{hint or f' {how[0].upper()}{how[1:]}.'}")


def _download(task: TaskSpec) -> list[Path]:
    """Fetch the split into the cache, whole or not at all."""
    target = cache_folder() / task.name
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".download-", dir=target))
    try:
        for url in task.urls.get(task.split, ()):
            _fetch(url, work)
        if task.hub and not task.urls.get(task.split):
            _fetch_hub(task, work)
        for archive in [p for p in work.rglob("*.zip") if not _hidden(p.relative_to(work))]:
            _unpack(task, archive)
        if not (files := find(task, [work])):
            raise BadInput(f"What was fetched for {task.name} has no {_what(task)}; its publisher may have moved it.")
        if (wanted := task.sha256.get(task.split)) and (got := digest_of(files)) != wanted:
            raise BadInput(
                f"What was fetched as the {_what(task)} is not what was published: sha256 {got}, not {wanted}; "
                f"get the files yourself ({task.source})."
            )
        for path in files:
            kept = target / path.relative_to(work)
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return find(task, [target])


def _fetch(url: str, folder: Path) -> None:
    import urllib.request

    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in ("https", "http", "file") or not name or name.startswith("."):
        raise BadInput(f"{url} is no address of a file (https://.../NAME).")
    request = urllib.request.Request(url, headers={"User-Agent": "pandallm"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(folder / name, "wb") as out:
            shutil.copyfileobj(answer, out)
    except OSError as e:  # URLError, HTTPError and time-outs are OSErrors
        raise BadInput(
            f"{url} cannot be fetched ({e}); get the file yourself and name its folder with --data."
        ) from None


def _fetch_hub(task: TaskSpec, folder: Path) -> None:
    assert task.hub is not None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(
            task.hub.repo,
            repo_type="dataset",
            revision=task.hub.revision,
            allow_patterns=list(task.hub.files) or None,
            local_dir=folder,
        )
    except (OSError, ValueError, HfHubHTTPError) as e:  # OfflineModeIsEnabled, LocalEntryNotFoundError and others
        reason = " ".join(str(e).split())[:200]
        raise BadInput(
            f"The data set {task.hub.repo} cannot be fetched from the hub ({reason}); set HF_ENDPOINT to a mirror, or "
            "get the files yourself and name their folder with --data."
        ) from None


def _unpack(task: TaskSpec, archive: Path) -> None:
    """Unpack what has a published name, beside the archive; names that lead elsewhere are refused."""
    patterns = [
        part for patterns in task.patterns.values() for alternative in patterns for part in alternative.split("|")
    ]
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                path = PurePosixPath(member.filename)
                if member.is_dir() or not any(path.match(p + ending) for p in patterns for ending in COMPRESSIONS):
                    continue
                if path.is_absolute() or ".." in path.parts:
                    raise BadInput(f"{archive.name} holds a file outside of its folder ({member.filename}).")
                kept = archive.parent / Path(*path.parts)
                kept.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, open(kept, "wb") as out:
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, OSError, EOFError) as e:
        raise BadInput(f"{archive.name} cannot be unpacked ({e}); fetch it again.") from None
    archive.unlink()

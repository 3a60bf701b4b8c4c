"""Content-addressed artifacts.

An artifact's key is the hash of its stage's name, that stage's version, its own settings and the digests of its inputs.
Its digest is the hash of the files it holds, so that two keys that give the same bytes give downstream the same input.
Layout below the root: `artifacts/<key>/` (committed, manifest.json inside), `work/<key>/` (under way, may be resumed).
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.store.files import digest_file, digest_json, fsync_folder, read_json, write_json
from pandallm.store.locks import exclusive

MANIFEST = "manifest.json"
#: Files below this folder (timings, curves) are kept and hashed but are not part of an artifact's digest.
LOGS = "logs"


@dataclass(frozen=True)
class Artifact:
    """A committed folder. `digest` is of its contents; `key` is of how it was made."""

    key: str
    path: Path
    digest: str
    manifest: Mapping[str, Any]


class Work:
    """A folder under way, locked by this process. `folder` may hold what an earlier, killed attempt left there."""

    def __init__(self, store: "Store", key: str, identity: Mapping[str, Any]) -> None:
        self._store, self.key, self._identity = store, key, identity
        self.folder = store.root / "work" / key
        self._started = time.time()

    def clear(self) -> None:
        """Forget what an earlier attempt left (for stages that do not resume)."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def commit(self, facts: Mapping[str, Any] | None = None) -> Artifact:
        """Hash every file, write the manifest last, rename into place. Hidden files and folders are not kept.

        They go last of all: a call that is killed before the rename goes on from the checkpoints among them.
        """
        visible = (p for p in self.folder.iterdir() if not p.name.startswith("."))
        inside = sorted(p for top in visible for p in (top, *top.rglob("*")))
        files = {
            p.relative_to(self.folder).as_posix(): {"sha256": digest_file(p), "bytes": p.stat().st_size}
            for p in inside
            if p.is_file()
        }
        files.pop(MANIFEST, None)
        content = {name: f["sha256"] for name, f in files.items() if not name.startswith(LOGS + "/")}
        manifest = {
            **self._identity,
            "key": self.key,
            "digest": digest_json(content),
            "files": files,
            "facts": dict(facts or {}),
            "seconds": round(time.time() - self._started, 3),
        }
        write_json(self.folder / MANIFEST, manifest)
        target = self._store.root / "artifacts" / self.key
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # an incomplete folder without manifest: never read, safe to replace
            shutil.rmtree(target)
        os.replace(self.folder, target)
        fsync_folder(target.parent)
        for hidden in [p for p in target.iterdir() if p.name.startswith(".")]:
            shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
        return Artifact(self.key, target, str(manifest["digest"]), manifest)


class Store:
    """The artifacts below one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def key(stage: str, version: int, settings: Any, inputs: Mapping[str, str]) -> str:
        """Key of what `stage` makes of `settings` and `inputs` (name -> digest): 32 hexadecimal digits."""
        return digest_json({"stage": stage, "version": version, "settings": settings, "inputs": dict(inputs)})[:32]

    def find(self, key: str) -> Artifact | None:
        """The committed artifact of this key, or None."""
        folder = self.root / "artifacts" / key
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_json(folder / MANIFEST)
        return Artifact(key, folder, str(manifest["digest"]), manifest)

    @contextmanager
    def begin(self, stage: str, version: int, settings: Any, inputs: Mapping[str, str]) -> Iterator[Work]:
        """`with store.begin(...) as work:` locks the key against other processes; then `work.commit()`."""
        identity = {"stage": stage, "version": version, "settings": settings, "inputs": dict(inputs)}
        work = Work(self, self.key(stage, version, settings, inputs), identity)
        busy = f"Another process is making artifact {work.key[:12]} ({stage}); wait for it or stop it, then run again."
        with exclusive(self.root / "locks" / f"{work.key}.lock", busy):
            work.folder.mkdir(parents=True, exist_ok=True)
            yield work

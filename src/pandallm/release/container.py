"""The container of a delta: shards `panda_delta-0000N-of-M.safetensors` of U8 tensors, and folders written whole or not at all."""

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from pandallm.errors import BadInput, PandaError
from pandallm.progress import Progress
from pandallm.release.manifest import Blob, Manifest, Shard, shard_name
from pandallm.release.weights import Tensor, read_elements, read_weight_file
from pandallm.store import digest_file

#: A shard is closed once it holds this much; a tensor's data is never split.
SHARD_BYTES = 4_000_000_000
_MARK = ".panda_part"


def gigabytes(count: int) -> str:
    """`13.5 GB`, or MB below one."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def refuse_existing(out: Path) -> None:
    """BadInput where `out` exists: nothing is ever overwritten."""
    if out.exists() or out.is_symlink():
        raise BadInput(f"{out} exists already; name another folder, or move it away yourself.")


def check_disk(out: Path, need: int) -> None:
    """PandaError where the disk of `out` has less than `need` bytes left."""
    place = out.absolute().parent
    while not place.exists():
        place = place.parent
    have = shutil.disk_usage(place).free
    if have < need:
        raise PandaError(f"Not enough disk at {place}: need {gigabytes(need)}, have {gigabytes(have)}; free some.")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder `OUT.part` to write into, renamed to `out` at the end and removed on any error.

    What a killed attempt left in `OUT.part` is replaced; a folder of that name made by anyone else is refused.
    """
    refuse_existing(out)
    part = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(out.with_name(f".{out.name}.lock")))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise PandaError(f"Another process is writing {out}; wait for it or name another folder.") from None
    try:
        if part.exists():
            if not (part / _MARK).is_file():
                raise BadInput(f"{part} exists and was not left by an interrupted delta; move it away yourself.")
            shutil.rmtree(part)
        part.mkdir()
        try:
            (part / _MARK).touch()
            yield part
            for path in part.rglob("*"):
                _sync(path)
            (part / _MARK).unlink()
            refuse_existing(out)
            os.rename(part, out)
            _sync(out.parent)
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise PandaError(f"The disk of {out.parent} is full; free some space, then run again.") from None
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class ContainerWriter:
    """Blobs one after the other; headers are written by `finish`, when all lengths are known."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, shard_bytes
        self._shards: list[dict[str, int]] = []
        self._body: BinaryIO | None = None
        self._key, self._start, self._chunks = "", 0, list[int]()

    def _body_path(self, number: int) -> Path:
        return self._folder / f".body-{number}"

    def begin(self, key: str) -> None:
        """Start the blob `key`."""
        if self._body is None or self._body.tell() >= self._limit:
            self.close()
            self._shards.append({})
            self._body = open(self._body_path(len(self._shards)), "wb")  # noqa: SIM115
        self._key, self._start, self._chunks = key, self._body.tell(), []

    def append(self, chunk: bytes) -> None:
        """One chunk of the blob that was begun."""
        assert self._body is not None
        self._body.write(chunk)
        self._chunks.append(len(chunk))

    def keep(self) -> Blob:
        """End the blob."""
        self._shards[-1][self._key] = sum(self._chunks)
        return Blob(shard=len(self._shards), chunks=tuple(self._chunks))

    def forget(self) -> None:
        """Take the blob that was begun back."""
        assert self._body is not None
        self._body.seek(self._start)
        self._body.truncate()

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def finish(self) -> tuple[Shard, ...]:
        """Write every shard under its name; returns their sizes and hashes."""
        self.close()
        done = []
        for number, blobs in enumerate(self._shards, 1):
            header: dict[str, object] = {"__metadata__": {"format": "panda-delta", "version": "1"}}
            at = 0
            for key, size in blobs.items():
                header[key] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
                at += size
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            text += b" " * (-len(text) % 8)
            path = self._folder / shard_name(number, len(self._shards))
            with open(path, "wb") as f, open(self._body_path(number), "rb") as body:
                f.write(struct.pack("<Q", len(text)) + text)
                shutil.copyfileobj(body, f, 1 << 20)
            self._body_path(number).unlink()
            done.append(Shard(bytes=path.stat().st_size, sha256=digest_file(path)))
        return tuple(done)


class ContainerReader:
    """The shards of a delta, opened only after their hashes were right."""

    def __init__(self, delta: Path, manifest: Manifest) -> None:
        self._paths = [delta / shard_name(n, len(manifest.shards)) for n in range(1, len(manifest.shards) + 1)]
        self._manifest = manifest
        self._tensors: list[Mapping[str, Tensor]] = []
        for number, (path, shard) in enumerate(zip(self._paths, manifest.shards, strict=True), 1):
            if not path.is_file():
                raise BadInput(f"Delta shard {number} of {len(self._paths)} is missing ({path.name}); download it.")
            if path.stat().st_size != shard.bytes:
                self._damaged(number, f"{path.stat().st_size:,} bytes, should be {shard.bytes:,}")

    def _damaged(self, number: int, why: str) -> None:
        raise BadInput(f"Delta shard {number} of {len(self._paths)} is damaged ({why}). Download it again.")

    def check(self, progress: Progress) -> None:
        """Compare every shard's sha256, then read the headers."""
        with progress.task("check delta", sum(s.bytes for s in self._manifest.shards) / 1e6, "MB") as task:
            for number, (path, shard) in enumerate(zip(self._paths, self._manifest.shards, strict=True), 1):
                if digest_file(path) != shard.sha256:
                    self._damaged(number, "sha256 mismatch")
                self._tensors.append({t.name: t for t in read_weight_file(path).tensors})
                task.advance(shard.bytes / 1e6)

    def chunks(self, key: str, blob: Blob) -> Iterator[bytes]:
        """The chunks of blob `key`."""
        tensor = self._tensors[blob.shard - 1].get(key)
        if tensor is None or tensor.dtype != "U8" or tensor.bytes != sum(blob.chunks):
            raise BadInput(f"{self._paths[blob.shard - 1]} does not hold {key!r} as the manifest says; get it again.")
        at = 0
        for size in blob.chunks:
            yield read_elements(tensor, at, size)
            at += size

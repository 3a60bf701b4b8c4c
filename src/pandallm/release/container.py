"""The container of a delta: shards `panda_delta-0000N-of-M.safetensors` of U8 tensors, and folders written whole or not at all."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock, Timeout

from pandallm.errors import BadInput, PandaError
from pandallm.progress import Progress
from pandallm.release.manifest import Blob, Manifest, Shard, shard_name
from pandallm.release.stream import in_order
from pandallm.release.weights import Tensor, read_weight_file
from pandallm.store import digest_file

#: A shard is closed once it holds this much; a tensor's data is never split.
SHARD_BYTES = 4_000_000_000
_MARK = ".panda_part"
#: The longest number that a header holds.
_LARGEST = 10**15


def gigabytes(count: int) -> str:
    """`13.5 GB`, or MB below one."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def refuse_existing(out: Path) -> None:
    """BadInput where `out` exists: nothing is ever overwritten."""
    if out.exists() or out.is_symlink():
        raise BadInput(f"{out} exists already; name another folder, or move it away yourself.")


def check_disk(out: Path, need: int) -> None:
    """PandaError where the disk of `out` has less than `need` bytes left; what an interrupted attempt wrote counts."""
    place = out.absolute().parent
    while not place.exists():
        place = place.parent
    have = shutil.disk_usage(place).free
    part = out.with_name(out.name + ".part")
    have += sum(p.stat().st_size for p in part.rglob("*") if p.is_file()) if (part / _MARK).is_file() else 0
    if have < need:
        raise PandaError(f"Not enough disk at {place}: need {gigabytes(need)}, have {gigabytes(have)}; free some.")


@contextmanager
def staged(out: Path, identity: str) -> Iterator[Path]:
    """A folder `OUT.part` to write into, renamed to `out` at the end; hidden files in it are left behind.

    What an interrupted attempt left in `OUT.part` is there again if its `identity` (of inputs and settings) was the same,
    else removed; a folder of that name made by anyone else is refused. Bad input removes `OUT.part`; an interruption or
    a full disk keeps it.
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
        _begin(part, identity)
        try:
            yield part
            for path in part.iterdir():
                if path.name.startswith(".") and path.name != _MARK:
                    path.unlink()
            for path in part.rglob("*"):
                _sync(path)
            (part / _MARK).unlink()
            refuse_existing(out)
            os.rename(part, out)
            _sync(out.parent)
        except PandaError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise PandaError(
                    f"The disk of {out.parent} is full; free some space and run the same command again: it goes on "
                    "where it stopped."
                ) from None
            raise
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _begin(part: Path, identity: str) -> None:
    mark = part / _MARK
    if part.is_symlink() or (part.exists() and not mark.is_file() and (not part.is_dir() or any(part.iterdir()))):
        raise BadInput(f"{part} exists and was not left by an interrupted delta; move it away yourself.")
    if mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") != identity:
        shutil.rmtree(part)
    part.mkdir(exist_ok=True)
    mark.write_text(identity, encoding="utf-8")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Journal:
    """JSON lines in a file of the work under way; a line that was cut off does not count."""

    def __init__(self, path: Path) -> None:
        self.lines: list[Any] = []
        good = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    value = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.lines.append(value)
                good += len(line)
        self._file = open(path, "ab")  # noqa: SIM115
        self._file.truncate(good)

    def add(self, value: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def keep(self, count: int) -> None:
        """Forget all lines but the first `count`."""
        del self.lines[count:]
        self._file.truncate(0)
        for line in self.lines:
            self.add(line)

    def close(self) -> None:
        self._file.close()


class ContainerWriter:
    """Blobs one after the other, behind room for the shard's header, which `finish` writes when all lengths are known.

    `keys` are the names of all blobs that may come: they bound the header's length.
    """

    def __init__(self, folder: Path, keys: Iterable[str], shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, shard_bytes
        most = {key: _header_entry(0, _LARGEST) for key in keys}
        self._room = 8 + len(_header_text(most)) + 7
        self._room -= self._room % 8
        self._shards: list[dict[str, int]] = []
        self._body: BinaryIO | None = None
        self._key, self._start, self._chunks = "", 0, list[int]()
        self._hash = hashlib.sha256()

    def _body_path(self, number: int) -> Path:
        return self._folder / f".body-{number}"

    def _open(self, mode: str) -> BinaryIO:
        self.close()
        self._shards.append({})
        self._body = cast(BinaryIO, open(self._body_path(len(self._shards)), mode))  # noqa: SIM115
        self._body.seek(self._room)
        return self._body

    def begin(self, key: str) -> None:
        """Start the blob `key`."""
        body = self._body
        if body is None or body.tell() - self._room >= self._limit:
            body = self._open("w+b")
        self._key, self._start, self._chunks, self._hash = key, body.tell(), [], hashlib.sha256()

    def append(self, chunk: bytes) -> None:
        """One chunk of the blob that was begun."""
        assert self._body is not None
        self._body.write(chunk)
        self._hash.update(chunk)
        self._chunks.append(len(chunk))

    def keep(self) -> tuple[Blob, str]:
        """End the blob; returns it and its sha256. What was written has left the process."""
        assert self._body is not None
        self._body.flush()
        self._shards[-1][self._key] = sum(self._chunks)
        return Blob(shard=len(self._shards), chunks=tuple(self._chunks)), self._hash.hexdigest()

    def forget(self) -> None:
        """Take the blob that was begun back."""
        assert self._body is not None
        self._body.seek(self._start)
        self._body.truncate()

    def again(self, key: str, blob: Blob, sha256: str) -> bool:
        """Take over a blob that an interrupted attempt wrote; False where it is not there as it should be."""
        if blob.shard > len(self._shards):
            path = self._body_path(len(self._shards) + 1)
            for finished in self._folder.glob(shard_name(len(self._shards) + 1, 0).replace("00000", "*")):
                os.replace(finished, path)
            if not path.is_file():
                return False
            self._open("r+b")
        body = self._body
        assert body is not None
        start, digest = body.tell(), hashlib.sha256()
        for size in blob.chunks:
            digest.update(body.read(size))
        if digest.hexdigest() != sha256 or body.tell() - start != sum(blob.chunks):
            body.seek(start)
            body.truncate()
            return False
        self._shards[-1][key] = sum(blob.chunks)
        return True

    def cut(self) -> None:
        """Drop what follows the blobs that were taken over."""
        if self._body is not None:
            self._body.truncate(self._body.tell())

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def finish(self) -> tuple[Shard, ...]:
        """Give every shard its header and its name; returns their sizes and hashes."""
        self.close()
        done = []
        for number, blobs in enumerate(self._shards, 1):
            header, at = {}, 0
            for key, size in blobs.items():
                header[key] = _header_entry(at, size)
                at += size
            text = _header_text(header).ljust(self._room - 8)
            path = self._folder / shard_name(number, len(self._shards))
            with open(self._body_path(number), "r+b") as f:
                f.write(struct.pack("<Q", len(text)) + text)
            os.replace(self._body_path(number), path)
            done.append(Shard(bytes=path.stat().st_size, sha256=digest_file(path)))
        return tuple(done)


def _header_entry(at: int, size: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}


def _header_text(entries: Mapping[str, object]) -> bytes:
    meta = {"__metadata__": {"format": "panda-delta", "version": "1"}}
    return json.dumps(meta | dict(entries), separators=(",", ":"), ensure_ascii=False).encode()


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
        others = "; the other shards can stay" if len(self._paths) > 1 else ""
        raise BadInput(f"Delta shard {number} of {len(self._paths)} is damaged ({why}). Download it again{others}.")

    def check(self, progress: Progress) -> None:
        """Compare every shard's sha256, then read the headers."""
        with progress.task("check delta", sum(s.bytes for s in self._manifest.shards) / 1e6, "MB") as task:
            digests = in_order(digest_file, self._paths)
            for number, (path, shard) in enumerate(zip(self._paths, self._manifest.shards, strict=True), 1):
                if next(digests) != shard.sha256:
                    self._damaged(number, "sha256 mismatch")
                self._tensors.append({t.name: t for t in read_weight_file(path).tensors})
                task.advance(shard.bytes / 1e6)

    def places(self, key: str, blob: Blob) -> list[tuple[Tensor, int, int]]:
        """Where the chunks of blob `key` lie, as arguments of `read_elements`."""
        tensor = self._tensors[blob.shard - 1].get(key)
        if tensor is None or tensor.dtype != "U8" or tensor.bytes != sum(blob.chunks):
            raise BadInput(f"{self._paths[blob.shard - 1]} does not hold {key!r} as the manifest says; get it again.")
        starts = itertools.accumulate(blob.chunks, initial=0)
        return [(tensor, at, size) for at, size in zip(starts, blob.chunks, strict=False)]

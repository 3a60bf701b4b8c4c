"""Applying a delta: base and delta checked, then the target decoded in several threads, hashed and written; resumable."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pandallm.errors import BadInput
from pandallm.progress import Progress, Task
from pandallm.release.codec import decode
from pandallm.release.container import ContainerReader, check_disk, refuse_existing, staged
from pandallm.release.make import file_chunks, read_base
from pandallm.release.manifest import MANIFEST, FileEntry, Manifest, TensorEntry, read_manifest
from pandallm.release.stream import in_order
from pandallm.release.weights import (
    ModelFolder,
    Tensor,
    WeightFile,
    open_model,
    parse_header,
    read_elements,
    spans,
    tensor_digest,
    tensor_hasher,
)
from pandallm.store import canonical_json, digest_file


def apply(base: Path, delta: Path, out: Path, progress: Progress) -> Manifest:
    """See `delta.apply_delta`."""
    refuse_existing(out)
    work = Application(base, delta)
    manifest = work.manifest
    check_disk(out, manifest.target_bytes)
    work.check(progress)
    identity = canonical_json({"apply": [digest_file(delta / MANIFEST), work.base.stamp()]})
    with staged(out, identity) as part, progress.task("apply", manifest.target_bytes / 1e6, "MB") as task:
        for name in manifest.files:
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "r+b" if path.is_file() else "w+b") as f:
                work.write(name, f, path, task)
    return manifest


def verify(base: Path, delta: Path, target: Path, progress: Progress) -> tuple[Manifest, list[str]]:
    """See `delta.verify_delta`."""
    work = Application(base, delta)
    manifest = work.manifest
    goal = open_model(target, "Target")
    work.check(progress)
    mismatches = []
    known = [(name, goal.tensors[name]) for name in manifest.tensors if name in goal.tensors]
    digests = dict(zip((n for n, _ in known), in_order(tensor_digest, [t for _, t in known]), strict=True))
    for name, entry in manifest.tensors.items():
        if name not in digests:
            mismatches.append(f"The target has no tensor {name!r}.")
        elif digests[name] != entry.sha256:
            mismatches.append(f"Tensor {name!r} differs.")
    present = _present(goal)
    with progress.task("verify", manifest.target_bytes / 1e6, "MB") as task:
        for name, file in manifest.files.items():
            for data in work.restore(name):  # raises where it is not what the manifest says
                task.advance(len(data) / 1e6)
            if name not in present:
                mismatches.append(f"The target has no file {name!r}.")
            elif _digest(present[name]) != file.sha256:
                mismatches.append(f"File {name!r} differs.")
    mismatches += [f"The delta does not make file {name!r}." for name in present if name not in manifest.files]
    return manifest, mismatches


def _present(folder: ModelFolder) -> dict[str, "WeightFile | Path | bytes"]:
    return {**folder.weights, **folder.others, **folder.generated}


def _digest(file: "WeightFile | Path | bytes") -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    return file.digest() if isinstance(file, WeightFile) else digest_file(file)


@dataclass(frozen=True)
class _Job:
    """A chunk to decode: where it and its reference lie."""

    entry: TensorEntry
    first: int
    count: int
    reference: Tensor | None
    coded: tuple[Tensor, int, int] | None


def _decode_chunk(job: _Job) -> bytes:
    data = None
    if job.reference is not None:
        data = read_base(job.reference, job.entry.dtype, job.first, job.count)
    if job.coded is not None:
        data = decode(read_elements(*job.coded), job.entry.dtype, job.count, data)
    assert data is not None
    return data


class Application:
    """A base and a delta that were found to fit together, and what they make."""

    def __init__(self, base: Path, delta: Path) -> None:
        self.manifest = read_manifest(delta)
        self._delta = delta
        self.base = open_model(base, "Base")
        self._container = ContainerReader(delta, self.manifest)

    def check(self, progress: Progress) -> None:
        """Refuse a wrong base (smallest tensors first, so that it fails soon), then a damaged delta."""
        needed = {e.base.name: e.base for e in self.manifest.tensors.values() if e.base}
        for name, need in needed.items():
            have = self.base.tensors.get(name)
            if have is None:
                raise BadInput(f"Wrong base: it has no tensor {name!r}, which this delta needs. Nothing was written.")
            if (have.dtype, have.shape) != (need.dtype, need.shape):
                raise BadInput(
                    f"Wrong base: tensor {name!r} is {have.dtype} {list(have.shape)}, "
                    f"this delta needs {need.dtype} {list(need.shape)}. Nothing was written."
                )
        tensors = sorted((self.base.tensors[name] for name in needed), key=lambda t: t.bytes)
        with (
            progress.task("check base", sum(t.bytes for t in tensors) / 1e6, "MB") as task,
            closing(in_order(tensor_digest, tensors)) as digests,
        ):
            for tensor, digest in zip(tensors, digests, strict=True):
                self._compare(f"tensor {tensor.name!r}", digest, needed[tensor.name].sha256)
                task.advance(tensor.bytes / 1e6)
        for name, file in self.manifest.files.items():
            if file.op == "same":
                if name not in self.base.others:
                    raise BadInput(f"Wrong base: it has no file {name!r}, which this delta needs. Nothing was written.")
                self._compare(f"file {name!r}", digest_file(self.base.others[name]), file.sha256)
        self._container.check(progress)
        self.weights = {n: self._header(n, f) for n, f in self.manifest.files.items() if f.op == "weights"}
        described = Counter(t.name for w in self.weights.values() for t in w.tensors)
        if described != Counter(self.manifest.tensors.keys()):
            raise self._inconsistent("its weight files and its list of tensors differ")

    def _compare(self, what: str, have: str, need: str) -> None:
        if have != need:
            raise BadInput(
                f"Wrong base: {what} has sha256 {have[:8]}…, this delta needs {need[:8]}…. Nothing was written."
            )

    def _inconsistent(self, why: str) -> BadInput:
        return BadInput(f"Delta {self._delta} is not sound: {why}. Get it again. Nothing was written.")

    def _header(self, name: str, file: FileEntry) -> WeightFile:
        header = b"".join(self._whole(f"header:{name}", file))
        if len(header) < 10 or int.from_bytes(header[:8], "little") != len(header) - 8:
            raise self._inconsistent(f"the header of {name} has a wrong length")
        tensors = parse_header(header, Path(name), file.bytes)
        for tensor in tensors:
            entry = self.manifest.tensors.get(tensor.name)
            if entry is None or (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
                raise self._inconsistent(f"tensor {tensor.name!r} is described in two ways")
        return WeightFile(Path(name), header, tensors)

    def _whole(self, key: str, file: FileEntry) -> Iterator[bytes]:
        assert file.blob is not None
        places = self._container.places(key, file.blob)
        for (_, count), place in zip(spans(0, file.blob_bytes), places, strict=True):
            yield decode(read_elements(*place), "U8", count)

    def _jobs(self, name: str) -> Iterator[_Job]:
        entry = self.manifest.tensors[name]
        if entry.op == "alias":
            assert entry.of is not None
            name, entry = entry.of, self.manifest.tensors[entry.of]
        reference = self.base.tensors[entry.base.name] if entry.base else None
        places = iter(self._container.places(f"tensor:{name}", entry.blob)) if entry.blob else None
        for first, count, shared in entry.spans():
            yield _Job(entry, first, count, reference if shared else None, None if places is None else next(places))

    def _tensors(self, tensors: list[Tensor]) -> Iterator[bytes]:
        """The bytes of tensors, one after the other; BadInput at the end of one that is not what it was."""
        jobs = (job for t in tensors for job in self._jobs(t.name))
        with closing(in_order(_decode_chunk, jobs)) as chunks:
            for tensor in tensors:
                entry = self.manifest.tensors[tensor.name]
                hasher, left = tensor_hasher(entry.dtype, entry.shape), tensor.bytes
                while left:
                    try:
                        data = next(chunks)
                    except BadInput as e:
                        raise BadInput(f"{e} (tensor {tensor.name!r})") from None
                    left -= len(data)
                    hasher.update(data)
                    yield data
                if hasher.hexdigest() != entry.sha256:
                    raise self._inconsistent(f"tensor {tensor.name!r} does not come back as it was")

    def restore(self, name: str, hasher: Any = None, kept: int = 0) -> Iterator[bytes]:
        """The bytes of file `name` of the target; BadInput at the end where they are not what they were.

        hasher, kept: the file's header and its first `kept` tensors are there already, and hashed.
        """
        file = self.manifest.files[name]
        resumed = hasher is not None
        hasher = hasher or hashlib.sha256()
        for data in self._parts(name, file, kept if resumed else None):
            hasher.update(data)
            yield data
        if hasher.hexdigest() != file.sha256:
            raise self._inconsistent(f"file {name!r} does not come back as it was")

    def _parts(self, name: str, file: FileEntry, kept: int | None) -> Iterator[bytes]:
        if file.op == "same":
            yield from file_chunks(self.base.others[name])
        elif file.op == "whole":
            yield from self._whole(f"file:{name}", file)
        else:
            weights = self.weights[name]
            if kept is None:
                yield weights.header
            yield from self._tensors(weights.tensors[kept or 0 :])

    def write(self, name: str, f: BinaryIO, path: Path, task: Task) -> None:
        """Write file `name` to `f`, open at its start on `path`; what an interrupted attempt left right is kept."""
        hasher, kept, at = self._left(name, f, path) if self.manifest.files[name].op == "weights" else (None, 0, 0)
        f.seek(at)
        f.truncate()
        task.advance(at / 1e6)
        for data in self.restore(name, hasher, kept):
            f.write(data)
            task.advance(len(data) / 1e6)

    def _left(self, name: str, f: BinaryIO, path: Path) -> tuple[Any, int, int]:
        """(hash so far, tensors, bytes) that an unfinished file of weights holds, as far as they are what they should be."""
        weights = self.weights[name]
        if f.read(len(weights.header)) != weights.header:
            return None, 0, 0
        whole, kept, at = hashlib.sha256(weights.header), 0, len(weights.header)
        size = path.stat().st_size
        for tensor in weights.tensors:
            if at + tensor.bytes > size:
                break
            here = Tensor(tensor.name, tensor.dtype, tensor.shape, path, at, tensor.bytes)
            if tensor_digest(here) != self.manifest.tensors[tensor.name].sha256:
                break
            for first, count in spans(0, here.count):
                whole.update(read_elements(here, first, count))
            kept, at = kept + 1, at + tensor.bytes
        return whole, kept, at

"""Deltas of model folders: base + delta = target, bit for bit, or nothing is written.

The format is specified in `docs/delta-format.md`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress, Task
from pandallm.release.codec import FLOATS, cast, decode, encode
from pandallm.release.container import (
    SHARD_BYTES,
    ContainerReader,
    ContainerWriter,
    check_disk,
    refuse_existing,
    staged,
)
from pandallm.release.manifest import MANIFEST, BaseTensor, Blob, FileEntry, Manifest, TensorEntry, read_manifest
from pandallm.release.weights import (
    INDEX,
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
from pandallm.store import digest_file, digest_json, write_json


def make_delta(
    base: Path, target: Path, out: Path, *, progress: Progress = SILENT, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write the folder `out`, from which `apply_delta` makes `target` again out of `base`.

    base, target: Hugging Face folders with safetensors. Memory is a few chunks, whatever the model's size.
    Returns {"bytes", "target_bytes", "ratio", "tensors", "ops": {op: tensors}, "base_root", "target_root", "skipped"}.
    Raises BadInput where a folder is none, or `out` exists; `out` is written whole or not at all.
    """
    refuse_existing(out)
    base_folder, target_folder = open_model(base, "Base"), open_model(target, "Target")
    check_disk(out, sum(t.bytes for t in target_folder.tensors.values()) // 20)
    total = sum(t.bytes for t in target_folder.tensors.values())
    with staged(out) as part:
        writer = ContainerWriter(part, shard_bytes)
        try:
            with progress.task("delta", total / 1e6, "MB") as task:
                tensors = _encode_tensors(base_folder, target_folder, writer, task)
            files = _encode_files(base_folder, target_folder, writer)
            shards = writer.finish()
        finally:
            writer.close()
        manifest = Manifest(
            format="panda-delta",
            version=1,
            pandallm=__version__,
            base_root=digest_json({e.base.name: e.base.sha256 for e in tensors.values() if e.base}),
            target_root=digest_json({name: e.sha256 for name, e in tensors.items()}),
            tensors=tensors,
            files=files,
            dropped=tuple(sorted(set(base_folder.tensors) - set(target_folder.tensors))),
            skipped=tuple(target_folder.skipped),
            shards=shards,
        )
        write_json(part / MANIFEST, manifest.model_dump(exclude_defaults=True))
    if target_folder.skipped:
        progress.say(f"Not shipped, because loading them may run code: {', '.join(target_folder.skipped)}")
    report = inspect_delta(out)
    return {k: report[k] for k in ("bytes", "target_bytes", "ratio", "tensors", "ops", "base_root", "target_root")} | {
        "skipped": target_folder.skipped
    }


def _reference(name: str, base: ModelFolder) -> Tensor | None:
    """The tensor of the base to compare with; an output matrix that the base ties to its embeddings compares with those."""
    if name in base.tensors or not name.endswith("lm_head.weight"):
        return base.tensors.get(name)
    embeddings = [n for n in base.tensors if n.endswith("embed_tokens.weight")]
    return base.tensors[embeddings[0]] if len(embeddings) == 1 else None


def _op(target: Tensor, reference: Tensor | None) -> str:
    if reference is None:
        return "whole"
    alike = target.dtype == reference.dtype
    if not alike and not {target.dtype, reference.dtype} <= set(FLOATS):
        return "whole"
    if target.shape == reference.shape:
        return "delta" if alike else "cast"
    same_rows = len(target.shape) == len(reference.shape) > 0 and target.shape[1:] == reference.shape[1:]
    return "rows" if same_rows else "whole"


def _read_base(reference: Tensor, dtype: str, first: int, count: int) -> bytes:
    return cast(read_elements(reference, first, count), reference.dtype, dtype)


def _encode_tensors(
    base: ModelFolder, target: ModelFolder, writer: ContainerWriter, task: Task
) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    digests: dict[str, str] = {}  # of base tensors, by name
    seen: dict[str, str] = {}  # tensors of the target that have data, by digest
    for file in target.weights.values():
        for tensor in file.tensors:
            reference = _reference(tensor.name, base)
            about: dict[str, Any] = {"op": _op(tensor, reference), "dtype": tensor.dtype, "shape": tensor.shape}
            if reference is not None:
                if reference.name not in digests:
                    digests[reference.name] = tensor_digest(reference)
                about["base"] = BaseTensor(
                    name=reference.name,
                    dtype=reference.dtype,
                    shape=reference.shape,
                    sha256=digests[reference.name],
                )
            plan = TensorEntry(**about, sha256="0" * 64)
            hasher, changed = tensor_hasher(tensor.dtype, tensor.shape), False
            writer.begin(f"tensor:{tensor.name}")
            for first, count, shared in plan.spans():
                data = read_elements(tensor, first, count)
                hasher.update(data)
                old = _read_base(reference, tensor.dtype, first, count) if shared and reference is not None else None
                changed |= data != old
                writer.append(encode(data, tensor.dtype, old))
                task.advance(len(data) / 1e6)
            about["sha256"] = digest = hasher.hexdigest()
            if about["op"] == "delta" and not changed:
                writer.forget()
                entries[tensor.name] = TensorEntry(**about | {"op": "same"})
            elif digest in seen:
                writer.forget()
                entries[tensor.name] = TensorEntry(**about | {"op": "alias", "of": seen[digest], "base": None})
            else:
                seen[digest] = tensor.name
                entries[tensor.name] = TensorEntry(**about, blob=writer.keep())
    return entries


def _encode_bytes(key: str, data: Iterator[bytes], writer: ContainerWriter) -> Blob:
    writer.begin(key)
    for part in data:
        writer.append(encode(part, "U8"))
    return writer.keep()


def _file_chunks(path: Path) -> Iterator[bytes]:
    whole = Tensor(path.name, "U8", (), path, 0, path.stat().st_size)
    return (read_elements(whole, first, count) for first, count in spans(0, whole.bytes))


def _encode_files(base: ModelFolder, target: ModelFolder, writer: ContainerWriter) -> dict[str, FileEntry]:
    entries = {}
    for name, file in target.weights.items():
        header = (file.header[first : first + count] for first, count in spans(0, len(file.header)))
        entries[name] = FileEntry(
            op="weights",
            bytes=file.path.stat().st_size,
            sha256=digest_file(file.path),
            header_bytes=len(file.header),
            blob=_encode_bytes(f"header:{name}", header, writer),
        )
    for name, path in target.others.items():
        size, digest = path.stat().st_size, digest_file(path)
        # The index is shipped always: a base sharded otherwise is still the right base.
        if name != INDEX and name in base.others and digest_file(base.others[name]) == digest:
            entries[name] = FileEntry(op="same", bytes=size, sha256=digest)
        else:
            blob = _encode_bytes(f"file:{name}", _file_chunks(path), writer)
            entries[name] = FileEntry(op="whole", bytes=size, sha256=digest, blob=blob)
    return entries


class _Application:
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
        with progress.task("check base", sum(t.bytes for t in tensors) / 1e6, "MB") as task:
            for tensor in tensors:
                self._compare(f"tensor {tensor.name!r}", tensor_digest(tensor), needed[tensor.name].sha256)
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
        for (_, count), chunk in zip(spans(0, file.blob_bytes), self._container.chunks(key, file.blob), strict=True):
            yield decode(chunk, "U8", count)

    def _tensor(self, name: str, digest: str) -> Iterator[bytes]:
        entry = self.manifest.tensors[name]
        if entry.op == "alias":
            assert entry.of is not None
            name, entry = entry.of, self.manifest.tensors[entry.of]
        reference = self.base.tensors[entry.base.name] if entry.base else None
        hasher = tensor_hasher(entry.dtype, entry.shape)
        chunks = self._container.chunks(f"tensor:{name}", entry.blob) if entry.blob else None
        try:
            for first, count, shared in entry.spans():
                data = None
                if shared and reference is not None:
                    data = _read_base(reference, entry.dtype, first, count)
                if chunks is not None:
                    data = decode(next(chunks), entry.dtype, count, data)
                assert data is not None
                hasher.update(data)
                yield data
        except BadInput as e:
            raise BadInput(f"{e} (tensor {name!r})") from None
        if hasher.hexdigest() != digest:
            raise self._inconsistent(f"tensor {name!r} does not come back as it was")

    def restore(self, name: str) -> Iterator[bytes]:
        """The bytes of file `name` of the target; BadInput at the end where they are not what they were."""
        file = self.manifest.files[name]
        hasher = hashlib.sha256()
        for data in self._parts(name, file):
            hasher.update(data)
            yield data
        if hasher.hexdigest() != file.sha256:
            raise self._inconsistent(f"file {name!r} does not come back as it was")

    def _parts(self, name: str, file: FileEntry) -> Iterator[bytes]:
        if file.op == "same":
            yield from _file_chunks(self.base.others[name])
        elif file.op == "whole":
            yield from self._whole(f"file:{name}", file)
        else:
            weights = self.weights[name]
            yield weights.header
            for tensor in weights.tensors:
                yield from self._tensor(tensor.name, self.manifest.tensors[tensor.name].sha256)


def apply_delta(base: Path, delta: Path, out: Path, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Make the target again as the folder `out`, every file with the bytes it had.

    A wrong base, a damaged delta, an existing `out` and a full disk are refused before anything is written; `out` appears
    only when every hash was right. Returns {"out", "bytes", "files", "tensors", "target_root"}.
    """
    refuse_existing(out)
    work = _Application(base, delta)
    manifest = work.manifest
    check_disk(out, manifest.target_bytes)
    work.check(progress)
    with staged(out) as part, progress.task("apply", manifest.target_bytes / 1e6, "MB") as task:
        for name in manifest.files:
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as f:
                for data in work.restore(name):
                    f.write(data)
                    task.advance(len(data) / 1e6)
    return {
        "out": str(out),
        "bytes": manifest.target_bytes,
        "files": len(manifest.files),
        "tensors": len(manifest.tensors),
        "target_root": manifest.target_root,
    }


def verify_delta(base: Path, delta: Path, target: Path, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Apply without writing, and compare every file and tensor with the folder `target`.

    Returns {"verified", "mismatches": [sentences], "files", "tensors", "bytes"}. A wrong base or a damaged delta raises
    BadInput, as in `apply_delta`; a target that differs is reported in `mismatches`.
    """
    work = _Application(base, delta)
    manifest = work.manifest
    goal = open_model(target, "Target")
    work.check(progress)
    mismatches = []
    for name, entry in manifest.tensors.items():
        tensor = goal.tensors.get(name)
        if tensor is None:
            mismatches.append(f"The target has no tensor {name!r}.")
        elif tensor_digest(tensor) != entry.sha256:
            mismatches.append(f"Tensor {name!r} differs.")
    present = {n: w.path for n, w in goal.weights.items()} | dict(goal.others)
    with progress.task("verify", manifest.target_bytes / 1e6, "MB") as task:
        for name in manifest.files:
            hasher = hashlib.sha256()
            for data in work.restore(name):
                hasher.update(data)
                task.advance(len(data) / 1e6)
            if name not in present:
                mismatches.append(f"The target has no file {name!r}.")
            elif digest_file(present[name]) != hasher.hexdigest():
                mismatches.append(f"File {name!r} differs.")
    mismatches += [f"The delta does not make file {name!r}." for name in present if name not in manifest.files]
    return {
        "verified": not mismatches,
        "mismatches": mismatches,
        "files": len(manifest.files),
        "tensors": len(manifest.tensors),
        "bytes": manifest.target_bytes,
    }


def inspect_delta(delta: Path) -> dict[str, Any]:
    """What a delta holds, from its manifest alone.

    Returns {"format", "version", "base_root", "target_root", "tensors", "ops": {op: tensors}, "dropped", "files": {op: n},
    "skipped", "shards", "bytes", "target_bytes", "ratio"}; `bytes` is of the whole delta, `ratio` bytes / target_bytes.
    """
    manifest = read_manifest(delta)
    size = (delta / MANIFEST).stat().st_size + sum(s.bytes for s in manifest.shards)
    return {
        "format": manifest.format,
        "version": manifest.version,
        "base_root": manifest.base_root,
        "target_root": manifest.target_root,
        "tensors": len(manifest.tensors),
        "ops": dict(sorted(Counter(e.op for e in manifest.tensors.values()).items())),
        "dropped": list(manifest.dropped),
        "files": dict(sorted(Counter(e.op for e in manifest.files.values()).items())),
        "skipped": list(manifest.skipped),
        "shards": len(manifest.shards),
        "bytes": size,
        "target_bytes": manifest.target_bytes,
        "ratio": round(size / manifest.target_bytes, 6) if manifest.target_bytes else 0.0,
    }

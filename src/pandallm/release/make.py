"""Making a delta: tensors coded chunk by chunk in several threads, resumable, written whole or not at all."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.progress import Progress, Task
from pandallm.release.codec import ITEM_BYTES, SAME, cast, encode
from pandallm.release.container import ContainerWriter, Journal, check_disk, refuse_existing, staged
from pandallm.release.manifest import MANIFEST, BaseTensor, Blob, FileEntry, Manifest, TensorEntry, manifest_text
from pandallm.release.matching import Match, match
from pandallm.release.stream import in_order
from pandallm.release.weights import (
    INDEX,
    ModelFolder,
    Tensor,
    open_model,
    read_elements,
    spans,
    tensor_digest,
    tensor_hasher,
)
from pandallm.store import canonical_json, digest_file, digest_json
from pandallm.store.files import write_text

_UNKNOWN = "0" * 64
_SAMPLED_TENSORS, _SAMPLE = 6, 1 << 16
#: Smaller files are shipped even where the base has them: cards and settings are edited on a hub, which makes no other base.
_LARGE_FILE = 16_384


def make(base: Path, target: Path, out: Path, progress: Progress, shard_bytes: int) -> ModelFolder:
    """Write the folder `out`; returns the target's folder as it was read. See `delta.make_delta`."""
    refuse_existing(out)
    base_folder, target_folder = open_pair(base, target)
    plan = [_Planned(m) for m in match(base_folder, target_folder)]
    check_disk(out, _estimate(plan, target_folder))
    stamps = [base_folder.stamp(), target_folder.stamp()]
    identity = {"make": [*stamps, shard_bytes, __version__]}
    with staged(out, canonical_json(identity)) as part:
        work = _Making(base_folder, target_folder, plan, part, shard_bytes)
        try:
            with progress.task("delta", target_folder.bytes / 1e6, "MB") as task:
                tensors, digests = work.tensors(task)
            files = work.files(digests)
            _unchanged(base_folder, stamps[0])
            _unchanged(target_folder, stamps[1])
            shards = work.writer.finish()
        finally:
            work.close()
        manifest = Manifest(
            format="panda-delta",
            version=1,
            pandallm=__version__,
            base_root=digest_json({e.base.name: e.base.sha256 for e in tensors.values() if e.base}),
            target_root=digest_json({name: e.sha256 for name, e in tensors.items()}),
            tensors=tensors,
            files=files,
            dropped=tuple(sorted(set(base_folder.tensors) - _used(tensors))) if not target_folder.adapter else (),
            skipped=tuple(target_folder.skipped),
            shards=shards,
        )
        write_text(part / MANIFEST, manifest_text(manifest))
    return target_folder


def open_pair(base: Path, target: Path) -> tuple[ModelFolder, ModelFolder]:
    """Base and target, looked at."""
    return open_model(base, "Base"), open_model(target, "Target")


def _used(tensors: dict[str, TensorEntry]) -> set[str]:
    return set(tensors) | {e.base.name for e in tensors.values() if e.base and e.op != "whole"}


class _Planned:
    """A tensor of the target with its entry, whose hashes are not known yet."""

    def __init__(self, found: Match) -> None:
        self.tensor, self.reference = found.tensor, found.reference
        self.about: dict[str, Any] = {
            "op": found.op, "dtype": self.tensor.dtype, "shape": self.tensor.shape, "sha256": _UNKNOWN
        }  # fmt: skip
        if self.reference is not None:
            r = self.reference
            self.about["base"] = BaseTensor(name=r.name, dtype=r.dtype, shape=r.shape, sha256=_UNKNOWN)
        self.spans = TensorEntry(**self.about).spans()

    def base(self, sha256: str) -> BaseTensor:
        return BaseTensor(**self.about["base"].model_dump() | {"sha256": sha256})


def read_base(reference: Tensor, dtype: str, first: int, count: int) -> bytes:
    """Elements of the base as the target's type."""
    return cast(read_elements(reference, first, count), reference.dtype, dtype)


@dataclass(frozen=True)
class _Chunk:
    data: bytes
    blob: bytes
    changed: bool


def _encode_chunk(job: tuple[_Planned, int, int, bool]) -> _Chunk:
    planned, first, count, shared = job
    data = read_elements(planned.tensor, first, count)
    old = None
    if shared and planned.reference is not None:
        old = read_base(planned.reference, planned.tensor.dtype, first, count)
    blob = encode(data, planned.tensor.dtype, old)
    return _Chunk(data, blob, old is None or blob[0] != SAME)


def _estimate(plan: list[_Planned], target: ModelFolder) -> int:
    """Bytes that the delta will have, about: what is coded against the base by a sample of the largest tensors."""
    shared = sum(sum(n for _, n, s in p.spans if s) * ITEM_BYTES[p.tensor.dtype] for p in plan)
    raw = coded = 1
    for planned in sorted(plan, key=lambda p: -p.tensor.bytes)[:_SAMPLED_TENSORS]:
        if planned.spans and planned.spans[0][2]:
            count = min(planned.spans[0][1], _SAMPLE)
            coded += len(_encode_chunk((planned, 0, count, True)).blob)
            raw += count * ITEM_BYTES[planned.tensor.dtype]
    others = sum(p.stat().st_size for p in target.others.values()) + sum(map(len, target.generated.values()))
    return int(1.1 * shared * coded / raw) + target.bytes - shared + others


class _Making:
    """The work under way in a folder."""

    def __init__(
        self, base: ModelFolder, target: ModelFolder, plan: list[_Planned], part: Path, shard_bytes: int
    ) -> None:
        self._base, self._target, self._plan = base, target, plan
        keys = [f"tensor:{p.tensor.name}" for p in plan] + [f"header:{n}" for n in target.weights]
        keys += [f"file:{n}" for n in (*target.others, *target.generated)]
        self.writer = ContainerWriter(part, keys, shard_bytes)
        self._journal = Journal(part / ".journal.jsonl")
        self._hashing = ThreadPoolExecutor(1)
        self._base_digests: dict[str, Future[str]] = {}
        self._seen: dict[str, str] = {}  # tensors of the target that have data, by digest

    def close(self) -> None:
        self.writer.close()
        self._journal.close()
        self._hashing.shutdown(cancel_futures=True)

    def _digest(self, reference: Tensor) -> "Future[str]":
        """sha256 of a tensor of the base, computed beside the coding."""
        if reference.name not in self._base_digests:
            self._base_digests[reference.name] = self._hashing.submit(tensor_digest, reference)
        return self._base_digests[reference.name]

    def _replay(self) -> dict[str, TensorEntry]:
        """The tensors that an interrupted attempt finished, as far as their data is still there."""
        entries: dict[str, TensorEntry] = {}
        for line, planned in zip(self._journal.lines, self._plan, strict=False):
            entry = TensorEntry.model_validate(line["entry"])
            if line["tensor"] != planned.tensor.name:
                break
            if entry.blob and not self.writer.again(f"tensor:{planned.tensor.name}", entry.blob, line["blob"]):
                break
            if entry.blob:
                self._seen[entry.sha256] = planned.tensor.name
            entries[planned.tensor.name] = entry
        self.writer.cut()
        self._journal.keep(len(entries))
        return entries

    def tensors(self, task: Task) -> tuple[dict[str, TensorEntry], dict[str, str]]:
        """Entries of all tensors, and the sha256 of the files of weights."""
        entries = self._replay()
        digests = {}
        todo = ((p, *span) for p in self._plan[len(entries) :] for span in p.spans)
        planned = iter(self._plan)
        with closing(in_order(_encode_chunk, todo)) as chunks:
            for name, file in self._target.weights.items():
                whole = hashlib.sha256(file.header)
                for _ in file.tensors:
                    self._tensor(next(planned), entries, chunks, whole.update, task)
                digests[name] = whole.hexdigest()
        return entries, digests

    def _tensor(
        self,
        planned: _Planned,
        entries: dict[str, TensorEntry],
        chunks: Iterator[_Chunk],
        update: Callable[[bytes], None],
        task: Task,
    ) -> None:
        tensor = planned.tensor
        if tensor.name in entries:
            for first, count, _ in planned.spans:
                data = read_elements(tensor, first, count)
                update(data)
                task.advance(len(data) / 1e6)
            return
        base = self._digest(planned.reference) if planned.reference is not None else None
        hasher, changed = tensor_hasher(tensor.dtype, tensor.shape), False
        self.writer.begin(f"tensor:{tensor.name}")
        for _ in planned.spans:
            chunk = next(chunks)
            hasher.update(chunk.data)
            update(chunk.data)
            changed |= chunk.changed
            self.writer.append(chunk.blob)
            task.advance(len(chunk.data) / 1e6)
        about = planned.about | {"sha256": hasher.hexdigest()}
        if base is not None:
            about["base"] = planned.base(base.result())
        blob = None
        if about["op"] == "delta" and not changed:
            about["op"] = "same"
        elif about["sha256"] in self._seen:
            about |= {"op": "alias", "of": self._seen[about["sha256"]], "base": None}
        else:
            self._seen[about["sha256"]] = tensor.name
            about["blob"], blob = self.writer.keep()
        if blob is None:
            self.writer.forget()
        entries[tensor.name] = entry = TensorEntry(**about)
        self._journal.add(
            {"tensor": tensor.name, "entry": entry.model_dump(mode="json", exclude_defaults=True), "blob": blob}
        )

    def _bytes(self, key: str, data: Iterator[bytes]) -> Blob:
        self.writer.begin(key)
        for part in data:
            self.writer.append(encode(part, "U8"))
        return self.writer.keep()[0]

    def files(self, digests: dict[str, str]) -> dict[str, FileEntry]:
        """Entries of all files; their data follows the tensors'."""
        entries = {}
        for name, file in self._target.weights.items():
            entries[name] = FileEntry(
                op="weights",
                bytes=file.bytes,
                sha256=digests[name],
                header_bytes=len(file.header),
                blob=self._bytes(f"header:{name}", pieces(file.header)),
            )
        for name, path in self._target.others.items():
            size, digest = path.stat().st_size, digest_file(path)
            # The index is shipped always: a base sharded otherwise is still the right base.
            large = size >= _LARGE_FILE and name != INDEX
            if large and name in self._base.others and digest_file(self._base.others[name]) == digest:
                entries[name] = FileEntry(op="same", bytes=size, sha256=digest)
            else:
                blob = self._bytes(f"file:{name}", file_chunks(path))
                entries[name] = FileEntry(op="whole", bytes=size, sha256=digest, blob=blob)
        for name, content in self._target.generated.items():
            digest = hashlib.sha256(content).hexdigest()
            blob = self._bytes(f"file:{name}", pieces(content))
            entries[name] = FileEntry(op="whole", bytes=len(content), sha256=digest, blob=blob)
        return entries


def pieces(content: bytes) -> Iterator[bytes]:
    """Bytes in chunks."""
    return (content[first : first + count] for first, count in spans(0, len(content)))


def file_chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes in chunks."""
    whole = Tensor(path.name, "U8", (), path, 0, path.stat().st_size)
    return (read_elements(whole, first, count) for first, count in spans(0, whole.bytes))


def _unchanged(folder: ModelFolder, before: list[list[str | int]]) -> None:
    """BadInput where a file of the folder has another size or time than before."""
    if folder.stamp() != before:
        raise BadInput(f"{folder.path} was changed while it was read; run again when nothing writes to it.")

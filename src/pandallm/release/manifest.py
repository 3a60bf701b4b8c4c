"""`panda_delta.json`: what a delta holds. Validated whole before anything else is read."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pandallm.errors import BadInput
from pandallm.release.codec import CHUNK, ITEM_BYTES
from pandallm.release.weights import is_plain_name, is_safe_path, spans
from pandallm.spec import Spec
from pandallm.store import canonical_json, digest_json, read_json

MANIFEST = "panda_delta.json"
#: A model of 100 GB has about 4 MB.
_MAX_MANIFEST_BYTES = 64_000_000
#: A chunk that does not compress is longer than its elements by no more than this.
_BLOB_SLACK = 1 << 16

Count = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Annotated[str, Field(pattern=rf"^({'|'.join(ITEM_BYTES)})$")]
Shape = Annotated[tuple[Count, ...], Field(max_length=64)]


def shard_name(number: int, of: int) -> str:
    """File name of shard `number`, counted from 1: nothing that a model loader looks for."""
    return f"panda_delta-{number:05d}-of-{of:05d}.safetensors"


class Blob(Spec):
    """A U8 tensor of shard number `shard` (from 1): chunks of these lengths, one after the other."""

    shard: Annotated[int, Field(ge=1, strict=True)]
    chunks: tuple[Count, ...]


class BaseTensor(Spec):
    """The tensor of the base that this one is coded against, and by which a wrong base is known."""

    name: str
    dtype: Dtype
    shape: Shape
    sha256: Sha256


class TensorEntry(Spec):
    """How one tensor of the target comes back. `of` names the tensor of the target that an alias repeats."""

    op: Literal["same", "delta", "cast", "rows", "whole", "alias"]
    dtype: Dtype
    shape: Shape
    sha256: Sha256
    base: BaseTensor | None = None
    blob: Blob | None = None
    of: str | None = None

    @property
    def count(self) -> int:
        return _product(self.shape)

    @property
    def shared(self) -> int:
        """Elements, from the first on, that are coded against the base."""
        if self.base is None or self.op == "whole":
            return 0
        return min(self.count, _product(self.base.shape)) if self.op == "rows" else self.count

    def spans(self) -> list[tuple[int, int, bool]]:
        """Chunks as (first element, elements, coded against the base)."""
        shared = self.shared
        return [(f, n, True) for f, n in spans(0, shared)] + [(f, n, False) for f, n in spans(shared, self.count)]


class FileEntry(Spec):
    """How one file of the target comes back: `weights` (blob: its header), `same` as the base's, or `whole`."""

    op: Literal["weights", "same", "whole"]
    bytes: Count
    sha256: Sha256
    header_bytes: Count = 0
    blob: Blob | None = None

    @property
    def blob_bytes(self) -> int:
        """Bytes that the blob holds."""
        return self.header_bytes if self.op == "weights" else self.bytes


class Shard(Spec):
    """One file of the container."""

    bytes: Count
    sha256: Sha256


class Manifest(Spec):
    """The whole of `panda_delta.json`. Roots are sha256 over the canonical JSON of {tensor name: sha256}.

    In the file a last field `sha256` follows: of the canonical JSON of all others.
    """

    format: Literal["panda-delta"]
    version: Literal[1]
    pandallm: str
    base_root: Sha256
    target_root: Sha256
    tensors: dict[str, TensorEntry]
    files: dict[str, FileEntry]
    dropped: tuple[str, ...]
    skipped: tuple[str, ...]
    shards: tuple[Shard, ...]

    @property
    def target_bytes(self) -> int:
        """Bytes of all files that come back."""
        return sum(f.bytes for f in self.files.values())


def manifest_text(manifest: Manifest) -> str:
    """The file's text: one line, because with many small tensors blanks are a good part of the whole."""
    fields = manifest.model_dump(mode="json", exclude_defaults=True)
    return canonical_json(fields | {"sha256": digest_json(fields)}) + "\n"


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total = min(total * n, 1 << 62)
    return total


def _tensor_fault(entry: TensorEntry, manifest: Manifest) -> str | None:
    base, rows = entry.base, entry.op == "rows"
    if entry.op == "alias":
        other = manifest.tensors.get(entry.of or "")
        if other is None or other.op == "alias" or (other.dtype, other.shape) != (entry.dtype, entry.shape):
            return "is an alias of a tensor that does not fit"
        return "is an alias and yet has data" if entry.blob is not None or base is not None else None
    if entry.of is not None or (entry.op != "whole" and base is None):
        return "lacks its base, or names a tensor without being an alias"
    if (entry.blob is None) != (entry.op == "same"):
        return "has data where none belongs, or lacks it"
    if base is not None and entry.op != "whole":
        if entry.dtype != base.dtype and (
            entry.op not in ("cast", "rows") or not {entry.dtype, base.dtype} <= {"BF16", "F16", "F32"}
        ):
            return "has another type than its base"
        if (
            (entry.shape[1:], len(entry.shape)) != (base.shape[1:], len(base.shape))
            if rows
            else entry.shape != base.shape
        ):
            return "has another shape than its base"
        if rows and not entry.shape:
            return "has no rows"
    if entry.blob is not None:
        parts = entry.spans() if entry.count // CHUNK <= len(entry.blob.chunks) else []
        return _blob_fault(entry.blob, [n * ITEM_BYTES[entry.dtype] for _, n, _ in parts], manifest)
    return None


def _blob_fault(blob: Blob, raw: list[int], manifest: Manifest) -> str | None:
    if blob.shard > len(manifest.shards):
        return "lies in a shard that does not exist"
    if len(blob.chunks) != len(raw) or any(n > r + _BLOB_SLACK for n, r in zip(blob.chunks, raw, strict=True)):
        return "has chunks that do not fit its size"
    return None


def read_manifest(delta: Path) -> Manifest:
    """Read and check `panda_delta.json` of the folder `delta`; BadInput names the first thing that is wrong."""
    path = delta / MANIFEST
    if not path.is_file():
        raise BadInput(f"{delta} is not a panda delta (no {MANIFEST}); give the folder that `panda delta make` wrote.")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BadInput(f"{path} is too large to be a delta's manifest; get the delta again.")
    try:
        raw = read_json(path)
    except (RecursionError, ValueError):  # nested too deeply; a number of thousands of digits
        raise BadInput(f"{path} is no delta's manifest; get the delta again.") from None
    if isinstance(raw, dict) and raw.get("format") == "panda-delta" and raw.get("version") != 1:
        raise BadInput(f"{path} has format version {raw.get('version')!r}; this pandallm reads 1, so update pandallm.")
    stated = raw.pop("sha256", None) if isinstance(raw, dict) else None
    try:
        sound = stated == digest_json(raw)
    except (ValueError, RecursionError):  # lone surrogates, infinities
        sound = False
    if not sound and isinstance(raw, dict) and raw.get("format") == "panda-delta":
        raise BadInput(f"{path} is damaged (sha256 mismatch); get the delta again.")
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise BadInput(f"{path} is damaged at {where} ({first['msg']}); get the delta again.") from None
    for name, entry in manifest.tensors.items():
        if fault := _tensor_fault(entry, manifest):
            raise BadInput(f"{path} is damaged: tensor {name!r} {fault}; get the delta again.")
    roots = (
        digest_json({e.base.name: e.base.sha256 for e in manifest.tensors.values() if e.base}),
        digest_json({name: e.sha256 for name, e in manifest.tensors.items()}),
    )
    if roots != (manifest.base_root, manifest.target_root):
        raise BadInput(f"{path} is damaged: its roots are not those of its tensors; get the delta again.")
    for name, file in manifest.files.items():
        fits = is_plain_name(name) and name.endswith(".safetensors") if file.op == "weights" else is_safe_path(name)
        if not fits or any(other.startswith(name + "/") for other in manifest.files):
            raise BadInput(
                f"{path} names the file {name!r}, which leads out of the folder or cannot be; do not use it."
            )
        if (file.blob is None) != (file.op == "same"):
            raise BadInput(f"{path} is damaged: file {name!r} has data where none belongs, or lacks it.")
        if file.blob is not None:
            parts = list(spans(0, file.blob_bytes)) if file.blob_bytes // CHUNK <= len(file.blob.chunks) else []
            if fault := _blob_fault(file.blob, [n for _, n in parts], manifest):
                raise BadInput(f"{path} is damaged: file {name!r} {fault}; get the delta again.")
    return manifest

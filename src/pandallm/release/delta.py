"""Deltas of model folders: base + delta = target, bit for bit, or nothing is written.

The format is specified in `docs/delta-format.md`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from pandallm.progress import SILENT, Progress
from pandallm.release import apply, make
from pandallm.release.container import SHARD_BYTES
from pandallm.release.manifest import MANIFEST, read_manifest


def make_delta(
    base: Path, target: Path, out: Path, *, progress: Progress = SILENT, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write the folder `out`, from which `apply_delta` makes `target` again out of `base`.

    base, target: Hugging Face folders with safetensors or `.bin`; target may be a LoRA adapter. Memory is a few chunks,
    whatever the model's size. An interrupted call goes on where it stopped when it is called again.
    Returns {"bytes", "target_bytes", "ratio", "tensors", "ops": {op: tensors}, "base_root", "target_root", "skipped"}.
    Raises BadInput where a folder is none, or `out` exists; `out` is written whole or not at all.
    """
    folder = make.make(base, target, out, progress, shard_bytes)
    if folder.skipped:
        progress.say(f"Not shipped, because loading them may run code: {', '.join(folder.skipped)}")
    if any(f.path.suffix == ".bin" for f in folder.weights.values()):
        progress.say("The target's .bin files come back as safetensors, with the same tensors.")
    report = inspect_delta(out)
    return {k: report[k] for k in ("bytes", "target_bytes", "ratio", "tensors", "ops", "base_root", "target_root")} | {
        "skipped": folder.skipped
    }


def apply_delta(base: Path, delta: Path, out: Path, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Make the target again as the folder `out`, every file with the bytes it had.

    A wrong base, a damaged delta, an existing `out` and a full disk are refused before anything is written; `out` appears
    only when every hash was right. An interrupted call goes on where it stopped when it is called again.
    Returns {"out", "bytes", "files", "tensors", "target_root"}.
    """
    manifest = apply.apply(base, delta, out, progress)
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
    manifest, mismatches = apply.verify(base, delta, target, progress)
    return {
        "verified": not mismatches,
        "mismatches": mismatches,
        "files": len(manifest.files),
        "tensors": len(manifest.tensors),
        "bytes": manifest.target_bytes,
    }


def inspect_delta(delta: Path) -> dict[str, Any]:
    """What a delta holds, from its manifest alone.

    Returns {"format", "version", "base_root", "target_root", "tensors", "ops": {op: tensors}, "renamed", "dropped", "files": {op: n},
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
        "renamed": sum(
            e.base is not None and e.op != "whole" and e.base.name != n for n, e in manifest.tensors.items()
        ),
        "dropped": list(manifest.dropped),
        "files": dict(sorted(Counter(e.op for e in manifest.files.values()).items())),
        "skipped": list(manifest.skipped),
        "shards": len(manifest.shards),
        "bytes": size,
        "target_bytes": manifest.target_bytes,
        "ratio": round(size / manifest.target_bytes, 6) if manifest.target_bytes else 0.0,
    }

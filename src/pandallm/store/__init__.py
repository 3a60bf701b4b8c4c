"""Content-addressed artifacts, manifests, atomic writes, locks."""

from pandallm.store.digests import FileDigests
from pandallm.store.files import (
    canonical_json,
    digest_bytes,
    digest_file,
    digest_files,
    digest_folder,
    digest_json,
    read_json,
    read_jsonl,
    write_bytes,
    write_json,
    write_jsonl,
    write_text,
)
from pandallm.store.locks import exclusive
from pandallm.store.store import Artifact, Store, Work

__all__ = [
    "Artifact",
    "FileDigests",
    "Store",
    "Work",
    "canonical_json",
    "digest_bytes",
    "digest_file",
    "digest_files",
    "digest_folder",
    "digest_json",
    "exclusive",
    "read_json",
    "read_jsonl",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_text",
]

"""Deltas changed by chance and by intent: nothing may crash, be read out of range, give a wrong model or leave the folder.

    python benchmarks/fuzz_delta.py [--quick] [--count N] [--seed S] [--json FILE]

A small base, target and delta are made with every op, type and coding. Each round changes a copy of the delta: bytes of a shard, its length, its header, chunks (their mode,
lengths, frames), fields of the manifest (numbers at the limits, paths, other entries' values, missing ones), raw text. In most rounds sizes and sha256 are put right again, as
somebody would who means it. `apply_delta` must then refuse with a sentence (PandaError), or give a folder whose every file and tensor has the sha256 that the manifest states:
equal to the target unless the manifest itself was changed with its hashes. Chunks are decoded alone as well. Goal: 10,000 rounds without a finding.
"""

import argparse
import copy
import hashlib
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

from pandallm.errors import BadInput, PandaError
from pandallm.release.codec import ITEM_BYTES, cast, decode, encode
from pandallm.release.delta import apply_delta, make_delta
from pandallm.release.weights import open_model, tensor_digest
from pandallm.store import digest_json

MANIFEST = "panda_delta.json"
SLOW_SECONDS = 10.0
NUMBERS = [
    0,
    1,
    2,
    -1,
    255,
    1 << 16,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    1 << 31,
    1 << 32,
    (1 << 62) - 1,
    1 << 63,
    1 << 70,
    10**400,
    0.5,
    True,
]
TEXTS = ["", ".", "..", "../evil", "/evil", "a/../../evil", "a\\evil", "C:evil", "x\0y", "\ud800", ".hidden", "config.json/x", "a" * 5000, "panda_delta.json", "BF16", "F32", "U8",
         "whole", "same", "delta", "rows", "alias", "cast", "0" * 64, "model.safetensors", "tensor:x"]  # fmt: skip


def write_model(folder: Path, tensors: dict[str, tuple[str, list[int], bytes]], extra: dict[str, str]) -> None:
    """A folder that looks like a model's, written without any library."""
    folder.mkdir(parents=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(d for *_, d in tensors.values())
    )
    for name, content in extra.items():
        (folder / name).write_text(content)


def bits(dtype: str, values: np.ndarray) -> bytes:
    return cast(values.astype("<f4").tobytes(), "F32", dtype)


def models(folder: Path) -> None:
    """`folder`/base and `folder`/target: every op, several types, drifts from none to everything."""
    draw = np.random.default_rng(0)
    old: dict[str, tuple[str, list[int], bytes]] = {}
    new: dict[str, tuple[str, list[int], bytes]] = {}
    for dtype in ("BF16", "F16", "F32"):
        for name, rows, drift in (("few", 60, 3e-4), ("some", 40, 5e-3), ("much", 30, 0.5), ("none", 20, 0.0)):
            values = draw.standard_normal((rows, 40)) * 0.04
            moved = values * (1 + drift * draw.standard_normal(values.shape))
            if name == "few":
                moved = np.where(draw.random(values.shape) < 0.03, moved * 1.01, values)
            key = f"model.{dtype}.{name}.weight"
            old[key], new[key] = (dtype, [rows, 40], bits(dtype, values)), (dtype, [rows, 40], bits(dtype, moved))
        new[f"model.{dtype}.more.weight"] = (dtype, [30, 16], bits(dtype, draw.standard_normal(480)))
        grown = draw.standard_normal((30, 16)) * 0.1
        old[f"model.{dtype}.rows.weight"] = (dtype, [25, 16], bits(dtype, grown[:25]))
        new[f"model.{dtype}.rows.weight"] = (dtype, [30, 16], bits(dtype, grown * 1.001))
    values = draw.standard_normal((20, 20))
    old["model.cast.weight"], new["model.cast.weight"] = (
        ("F32", [20, 20], bits("F32", values)),
        ("BF16", [20, 20], bits("BF16", values * 1.001)),
    )
    old["was.called.so.weight"], new["is.called.so.weight"] = (
        ("BF16", [20, 30], bits("BF16", draw.standard_normal(600))),
    ) * 2
    old["model.gone.weight"] = ("BF16", [3], bits("BF16", np.ones(3)))
    new["model.ids"] = ("I64", [50], np.arange(50, dtype="<i8").tobytes())
    new["model.again.weight"] = new["model.BF16.more.weight"]
    new["model.empty.weight"] = ("F32", [0, 4], b"")
    write_model(folder / "base", old, {"config.json": "{}", "tokenizer.json": '{"a": 1}' * 3000})
    write_model(
        folder / "target",
        new,
        {"config.json": '{"b": 2}', "tokenizer.json": '{"a": 1}' * 3000, "notes.md": "text " * 60},
    )


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, child in items for p in nodes(child, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def get(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


class Fuzzer:
    """Copies of a delta, changed; and the judgement of what came of each."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.top = Path(tempfile.mkdtemp(prefix="fuzz-delta-"))
        self.room = self.top / "room"
        models(self.room)
        make_delta(self.room / "base", self.room / "target", self.room / "delta", shard_bytes=6000)
        self.delta = {p.name: p.read_bytes() for p in (self.room / "delta").iterdir()}
        self.target = {p.name: p.read_bytes() for p in (self.room / "target").iterdir()}
        self.shards = sorted(n for n in self.delta if n.endswith(".safetensors"))
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self.slowest = 0.0
        self.codings: Counter[str] = Counter()
        self.chunks = list(self._chunks())

    def _chunks(self) -> Any:
        """(blob, type, elements, base) of chunks of every mode."""
        draw = np.random.default_rng(1)
        text = encode(b"text " * 600, "U8")
        self.codings.update([f"mode {text[0]}"])
        yield text, "U8", 3000, None
        for dtype in ("BF16", "F16", "F32"):
            base = draw.standard_normal(3000) * 0.05
            for drift, share in ((1e-2, 0.01), (3e-3, 1), (0.3, 1), (0, 1), (9, 1)):
                moved = np.where(draw.random(3000) < share, base * (1 + drift * draw.standard_normal(3000)), base)
                old, new = bits(dtype, base), bits(dtype, moved)
                for blob, reference in ((encode(new, dtype, old), old), (encode(new, dtype), None)):
                    self.codings.update([f"mode {blob[0]}"])
                    if blob[0] == 1:
                        self.codings.update(
                            f"coding {c & 15} split {c >> 4}" for c in blob[9 : 9 + int.from_bytes(blob[1:3], "little")]
                        )
                    yield blob, dtype, 3000, reference

    def close(self) -> None:
        shutil.rmtree(self.top)

    def bytes_changed(self, data: bytes) -> bytes:
        """Some bytes changed, cut, added, or moved."""
        r, out = self.random, bytearray(data)
        for _ in range(r.choice([1, 1, 2, 4, 16])):
            at = r.randrange(len(out) + 1)
            way = r.randrange(8)
            if way < 4 and at < len(out):
                out[at] = r.choice([0, 1, 255, out[at] ^ (1 << r.randrange(8)), r.randrange(256)])
            elif way == 4:
                del out[at : at + r.choice([1, 4, 100])]
            elif way == 5:
                out[at:at] = r.randbytes(r.choice([1, 4, 100]))
            elif way == 6 and len(out) > 8:
                out[at : at + 4] = struct.pack("<I", r.choice([0, 1, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF]))
            else:
                other = r.randrange(len(out) + 1)
                out[at : at + 16] = out[other : other + 16]
        return bytes(out)

    def chunk(self) -> None:
        """One changed chunk decoded alone."""
        blob, dtype, count, base = self.random.choice(self.chunks)
        head = blob[:64] if self.random.random() < 0.6 else blob
        hostile = self.bytes_changed(head) + blob[len(head) :]
        if self.random.random() < 0.1:
            base = self.random.randbytes(count * ITEM_BYTES[dtype])
        if self.random.random() < 0.1:
            count = self.random.choice([0, 1, 2999, 3001, 1 << 20, (1 << 20) + 1])
        try:
            out = decode(hostile, dtype, count, base)
        except BadInput:
            self.counts["chunk: refused"] += 1
            return
        self.counts["chunk: decoded to its length"] += 1
        if len(out) != count * ITEM_BYTES[dtype]:
            self.findings.append(f"chunk of {count} {dtype} decoded to {len(out)} bytes")

    def change(self) -> tuple[dict[str, bytes], str]:
        """A changed delta, and what was done to it."""
        r, files = self.random, dict(self.delta)
        way = r.choice(["shard", "chunk", "header", "field", "field", "field", "swap", "text"])
        manifest = json.loads(files[MANIFEST])
        if way == "text":
            files[MANIFEST] = self.bytes_changed(files[MANIFEST])
            return files, way
        if way in ("shard", "header", "chunk"):
            name = r.choice(self.shards)
            data = files[name]
            length = 8 + int.from_bytes(data[:8], "little")
            if way == "shard":
                data = self.bytes_changed(data)
            elif way == "header":
                data = self.bytes_changed(data[:length]) + data[length:]
            else:  # the first bytes of a blob, where modes and lengths are
                places = [e["data_offsets"] for k, e in json.loads(data[8:length]).items() if k != "__metadata__"]
                begin, end = r.choice(places)
                size, part = end - begin, data[length + begin : length + end]
                part = self.bytes_changed(part[:40]) + part[40:]
                data = data[: length + begin] + part[:size].ljust(size, b"\0") + data[length + end :]
            files[name] = data
        elif way == "field":
            for _ in range(r.choice([1, 1, 2])):
                paths = nodes(manifest)[1:]
                path = r.choice(paths)
                new = r.choice(
                    [r.choice(NUMBERS), r.choice(TEXTS), None, [], {}, copy.deepcopy(get(manifest, r.choice(paths)))]
                )
                parent = get(manifest, path[:-1])
                kind = r.randrange(4)
                if kind == 0 and isinstance(parent, dict):
                    parent[r.choice([*TEXTS, *parent])] = parent.pop(path[-1])
                elif kind == 1:
                    del parent[path[-1]]
                else:
                    put(manifest, path, new)
        else:
            names = [n for n, e in manifest["tensors"].items() if "blob" in e]
            a, b = r.sample(names, 2)
            field = r.choice(["blob", "base", "shape", "op", "sha256"])
            mine, other = manifest["tensors"][a], manifest["tensors"][b]
            if field in mine and field in other:
                mine[field], other[field] = other[field], mine[field]
        if r.random() < 0.9:
            self._put_right(manifest, files)
            way += ", hashes put right"
        manifest.pop("sha256", None)
        try:
            if r.random() < 0.95:
                manifest["sha256"] = digest_json(manifest)
            files[MANIFEST] = json.dumps(manifest).encode()
        except ValueError:
            files[MANIFEST] = b"{}"
        return files, way

    def _put_right(self, manifest: Any, files: dict[str, bytes]) -> None:
        """Sizes, hashes and roots, as far as the manifest still has the shape for them."""
        try:
            for entry, name in zip(manifest["shards"], self.shards, strict=False):
                if name in files and files[name] != self.delta[name]:
                    entry.update(bytes=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
            tensors = manifest["tensors"]
            manifest["target_root"] = digest_json({n: e["sha256"] for n, e in tensors.items()})
            manifest["base_root"] = digest_json(
                {e["base"]["name"]: e["base"]["sha256"] for e in tensors.values() if e.get("base")}
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            pass

    def round(self) -> None:
        """One changed delta applied."""
        files, way = self.change()
        bad, out = self.room / "bad", self.room / "out"
        bad.mkdir()
        for name, data in files.items():
            (bad / name).write_bytes(data)
        began = time.perf_counter()
        try:
            apply_delta(self.room / "base", bad, out)
        except PandaError as e:
            self.counts[f"{way}: refused"] += 1
            if out.exists() or "\n" in str(e):
                self.findings.append(f"{way}: refused with {e!r}, and yet something was written or it is no sentence")
        except Exception as e:  # the finding that this is about
            self.findings.append(f"{way}: {type(e).__name__}: {e}")
            shutil.copytree(bad, self.top / f"finding-{len(self.findings)}")
        else:
            self._judge(way, json.loads(files[MANIFEST]), out)
        self.slowest = max(self.slowest, time.perf_counter() - began)
        shutil.rmtree(bad)
        shutil.rmtree(out, ignore_errors=True)
        if sorted(p.name for p in self.top.iterdir() if not p.name.startswith("finding")) != ["room"] or sorted(
            p.name for p in self.room.iterdir()
        ) != ["base", "delta", "target"]:
            self.findings.append(f"{way}: something was written elsewhere: {[p.name for p in self.room.iterdir()]}")

    def _judge(self, way: str, manifest: Any, out: Path) -> None:
        got = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        if got == self.target:
            self.counts[f"{way}: the target"] += 1
            return
        stated = {n: f["sha256"] for n, f in manifest["files"].items()}
        tensors = open_model(out, "Target").tensors if "config.json" in got else {}
        if {n: hashlib.sha256(d).hexdigest() for n, d in got.items()} == stated and all(
            tensor_digest(t) == manifest["tensors"][n]["sha256"] for n, t in tensors.items()
        ):
            self.counts[f"{way}: another target, as the changed manifest says"] += 1
            if not set(got.values()) <= set(self.target.values()):
                self.findings.append(f"{way}: a file that the target has not")
            return
        self.findings.append(f"{way}: a wrong target was accepted")


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """`count` changed deltas and as many chunks; {"rounds", "counts", "findings", "slowest_seconds", "codings"}."""
    fuzzer = Fuzzer(seed)
    try:
        for _ in range(count):
            fuzzer.round()
            fuzzer.chunk()
        return {
            "rounds": count,
            "counts": dict(sorted(fuzzer.counts.items())),
            "findings": fuzzer.findings,
            "slowest_seconds": fuzzer.slowest,
            "codings": dict(sorted(fuzzer.codings.items())),
        }
    finally:
        fuzzer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 rounds")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    count = args.count or (500 if args.quick else 10_000)
    began = time.perf_counter()
    done = fuzz(count, args.seed)
    print(
        f"{count} changed deltas and as many chunks, seed {args.seed}, {time.perf_counter() - began:.0f} s, the slowest {done['slowest_seconds']:.2f} s"
    )
    for name, number in done["counts"].items():
        print(f"  {number:6d}  {name}")
    print("codings met: " + ", ".join(done["codings"]))
    for finding in done["findings"][:20]:
        print(f"FINDING {finding}")
    met = count >= 10_000 and not done["findings"] and done["slowest_seconds"] < SLOW_SECONDS
    print(f"{len(done['findings'])} findings" + ("" if count >= 10_000 else " (fewer rounds than the goal's 10,000)"))
    figures = {
        "rounds": count,
        "findings": len(done["findings"]),
        "slowest_seconds": done["slowest_seconds"],
        "counts": done["counts"],
    }
    write(
        args.json,
        result(
            "fuzz_delta",
            figures,
            {"rounds": 10_000, "findings": 0, "slowest_seconds": SLOW_SECONDS},
            met,
            "python benchmarks/fuzz_delta.py",
        ),
    )
    if done["findings"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

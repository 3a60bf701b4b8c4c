"""A base and a target made of integers alone, so that they are the same everywhere. Running it writes the stored delta anew."""

import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

from pandallm.release.floats import FLOATS

Tensors = dict[str, tuple[str, list[int], bytes]]


def noise(name: str, count: int) -> np.ndarray:
    """Pseudo-random uint32 from sha256."""
    blocks = [hashlib.sha256(f"{name} {i}".encode()).digest() for i in range(-(-count // 8))]
    return np.frombuffer(b"".join(blocks), "<u4")[:count]


def weights(name: str, dtype: str, count: int) -> np.ndarray:
    """Bit patterns that look like weights: random sign and fraction, exponents that halve in number downwards."""
    kind, draw = FLOATS[dtype], noise(name, count)
    low = np.array([int(x & -x).bit_length() for x in (noise(name + " exponent", count) | 1 << 11).tolist()])
    exponent = (kind.exponent_mask >> 1) - 2 - low
    sign = (draw >> 31).astype(np.int64) << (kind.bits - 1)
    fraction = draw.astype(np.int64) & ((1 << kind.mantissa) - 1)
    return (sign | exponent << kind.mantissa | fraction).astype(kind.dtype)


def moved(name: str, bits: np.ndarray, steps: int, one_in: int) -> np.ndarray:
    """Some of the bit patterns moved by up to `steps`."""
    draw = noise(name + " moved", bits.size).astype(np.int64)
    step = np.where(draw % one_in == 0, draw // one_in % (2 * steps + 1) - steps, 0)
    return (bits.astype(np.int64) + step).astype(bits.dtype)


def save(folder: Path, tensors: Tensors, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    data = b"".join(d for *_, d in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    for name, content in files.items():
        (folder / name).write_text(content)


def write_models(folder: Path) -> None:
    """`folder`/base and `folder`/target, with every op and coding of the format."""
    old: Tensors = {}
    new: Tensors = {}
    for dtype in ("BF16", "F16", "F32"):
        for name, steps, one_in in (("few", 1, 90), ("two", 1, 2), ("four", 5, 1), ("eight", 90, 1), ("none", 0, 1)):
            key = f"model.{dtype}.{name}.weight"
            bits = weights(key, dtype, 4800)
            old[key] = (dtype, [60, 80], bits.tobytes())
            new[key] = (dtype, [60, 80], moved(key, bits, steps, one_in).tobytes())
    new["model.new.weight"] = new["model.again.weight"] = ("BF16", [50, 40], weights("new", "BF16", 2000).tobytes())
    rows = weights("rows", "BF16", 1200)
    old["model.rows.weight"] = ("BF16", [25, 40], rows[:1000].tobytes())
    new["model.rows.weight"] = ("BF16", [30, 40], rows.tobytes())
    wide = weights("cast", "F32", 600)
    old["model.cast.weight"] = ("F32", [20, 30], wide.tobytes())
    new["model.cast.weight"] = ("BF16", [20, 30], moved("cast", (wide >> 16).astype("<u2"), 2, 3).tobytes())
    old["was.called.so.weight"] = new["is.called.so.weight"] = ("F16", [9, 7], weights("so", "F16", 63).tobytes())
    old["model.gone.weight"] = ("F32", [2], weights("gone", "F32", 2).tobytes())
    new["model.ids"] = ("I64", [40], np.arange(40, dtype="<i8").tobytes())
    save(folder / "base", old, {"config.json": "{}\n", "tokenizer.json": '{"a": 1}\n' * 3000})
    save(folder / "target", new, {"config.json": '{"b": 2}\n', "tokenizer.json": '{"a": 1}\n' * 3000})


def main(folder: Path) -> None:
    import shutil
    import tempfile

    from pandallm.release.delta import make_delta

    with tempfile.TemporaryDirectory() as work:
        write_models(Path(work))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make_delta(Path(work) / "base", Path(work) / "target", folder / "delta")
        digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (Path(work) / "target").iterdir()}
        (folder / "target.json").write_text(json.dumps(dict(sorted(digests.items())), indent=1) + "\n")
        base = hashlib.sha256((Path(work) / "base/model.safetensors").read_bytes()).hexdigest()
        (folder / "base.sha256").write_text(base + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "delta-v1")

"""A delta of format version 1 that was written once: every later pandallm must read it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pandallm.release.delta import apply_delta, inspect_delta, verify_delta
from pandallm.release.difference import DIFFERENCE
from tests.golden.delta_model import write_models

FOLDER = Path(__file__).parent / "delta-v1"
#: sha256 of the target's files.
TARGET = json.loads((FOLDER / "target.json").read_text())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_models(folder)
    return folder


def test_stored_delta_gives_the_target(models: Path, tmp_path: Path) -> None:
    delta = FOLDER / "delta"
    apply_delta(models / "base", delta, tmp_path / "out")
    got = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "out").iterdir()}
    assert got == TARGET
    assert verify_delta(models / "base", delta, models / "target")["verified"] is True


def test_stored_delta_has_every_op_and_coding() -> None:
    report = inspect_delta(FOLDER / "delta")
    assert set(report["ops"]) == {"same", "delta", "cast", "rows", "whole", "alias"}
    assert set(report["files"]) == {"weights", "same", "whole"}
    assert report["renamed"] == 1
    assert report["dropped"] == ["model.gone.weight"]
    shard = (FOLDER / "delta/panda_delta-00001-of-00001.safetensors").read_bytes()
    begin = 8 + int.from_bytes(shard[:8], "little")
    header = json.loads(shard[8:begin])
    manifest = json.loads((FOLDER / "delta/panda_delta.json").read_text())
    modes, codings = set(), set()
    for name, entry in manifest["tensors"].items():
        if blob := entry.get("blob"):
            at = begin + header[f"tensor:{name}"]["data_offsets"][0]
            for size in blob["chunks"]:
                chunk = shard[at : at + size]
                modes.add(chunk[0])
                if chunk[0] == DIFFERENCE:
                    codings |= {c & 15 for c in chunk[9 : 9 + int.from_bytes(chunk[1:3], "little")]}
                at += size
    assert modes >= {0, 1, 2, 3}
    assert codings == {0, 1, 2, 3}


def test_models_are_made_of_integers_alone(models: Path) -> None:
    """Else another NumPy might make another base, and the stored delta would look broken."""
    data = np.fromfile(models / "base/model.safetensors", np.uint8)
    assert hashlib.sha256(data.tobytes()).hexdigest() == TARGET_BASE


TARGET_BASE = (FOLDER / "base.sha256").read_text().strip()

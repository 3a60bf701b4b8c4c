"""`panda delta` as a user calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandallm.cli import main
from tests.golden.delta_model import save, weights
from tests.release.release_helpers import files

Tensors = dict[str, tuple[str, list[int], bytes]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    old: Tensors = {}
    new: Tensors = {}
    for i in range(12):
        bits = weights(str(i), "BF16", 60_000)
        old[f"w{i}"] = ("BF16", [60_000], bits.tobytes())
        new[f"w{i}"] = ("BF16", [60_000], (bits + np.arange(60_000) % 3 // 2).astype("<u2").tobytes())
    save(tmp_path / "base", old, {"config.json": "{}"})
    save(tmp_path / "tuned", new, {"config.json": '{"a": 1}'})
    return tmp_path


def panda(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["delta", *map(str, arguments)])
    done = capsys.readouterr()
    return int(stop.value.code or 0), done.out, done.err


def test_make_apply_verify_inspect(models: Path, capsys: Any) -> None:
    base, tuned, delta, back = (models / n for n in ("base", "tuned", "delta", "back"))
    code, out, _ = panda(capsys, "make", base, tuned, delta, "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["ops"] == {"delta": 12}
    assert panda(capsys, "apply", base, delta, back, "--quiet")[1].startswith(f"Wrote {back}; every hash matches")
    assert files(back) == files(tuned)
    assert "bit for bit" in panda(capsys, "verify", base, delta, back, "--quiet")[1]
    assert "ops: delta 12" in panda(capsys, "inspect", delta)[1]
    code, out, err = panda(capsys, "verify", base, delta, base, "--quiet")
    assert code == 1
    assert "is not what base and delta give: Tensor 'w0' differs. (" in err
    code, out, err = panda(capsys, "apply", tuned, delta, models / "other", "--quiet")
    assert code == 2
    assert "Wrong base: tensor 'w0' has sha256" in err
    code, out, err = panda(capsys, "make", base, tuned, delta)
    assert code == 2
    assert "exists already" in err


@pytest.mark.parametrize("verb", ["make", "apply"])
def test_killed_and_called_again(models: Path, capsys: Any, verb: str) -> None:
    """kill -9 in the midst of writing; the same command then gives the same bytes."""
    base, tuned, delta = (models / n for n in ("base", "tuned", "delta"))
    assert panda(capsys, "make", base, tuned, delta, "--quiet")[0] == 0
    other = {"make": tuned, "apply": delta}[verb]
    slow = (
        "import sys, time; from pandallm.release import make, apply; from pandallm.cli import main\n"
        "def late(f):\n    def g(job):\n        time.sleep(.15); return f(job)\n    return g\n"
        "make._encode_chunk = late(make._encode_chunk); apply._decode_chunk = late(apply._decode_chunk)\n"
        f"main(['delta', {verb!r}, {str(base)!r}, {str(other)!r}, {str(models / 'out')!r}, '--quiet'])"
    )
    process = subprocess.Popen([sys.executable, "-c", slow])
    part = models / "out.part"
    written = part / {"make": ".journal.jsonl", "apply": "model.safetensors"}[verb]
    end = time.time() + 60
    while not (written.is_file() and written.stat().st_size > 300_000 * (verb == "apply")):
        assert process.poll() is None
        assert time.time() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert part.is_dir()
    assert not (models / "out").exists()
    assert panda(capsys, verb, base, other, models / "out", "--quiet")[0] == 0
    assert files(models / "out") == files({"make": delta, "apply": tuned}[verb])
    assert not part.exists()

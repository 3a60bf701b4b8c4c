"""A few hundred rounds of `benchmarks/fuzz_delta.py`; its full run is 10,000."""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_delta.py"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location("fuzz_delta", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_delta", module)
    spec.loader.exec_module(module)
    return module


def test_changed_deltas_do_no_harm(fuzz: Any) -> None:
    done = fuzz.fuzz(200, seed=1)
    assert done["findings"] == []
    assert sum(done["counts"].values()) == 400
    refused = sum(n for name, n in done["counts"].items() if name.endswith("refused"))
    assert 250 < refused < 400
    assert {"mode 0", "mode 1", "mode 2", "mode 3"} <= set(done["codings"])
    assert {f"coding {k}" for k in range(4)} <= {c[:8] for c in done["codings"]}


def test_a_crash_is_a_finding(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandallm.release import apply

    def crash(self: Any, why: str) -> Exception:
        return IndexError(why)

    monkeypatch.setattr(apply.Application, "_inconsistent", crash)
    assert any("IndexError" in f for f in fuzz.fuzz(60, seed=1)["findings"])


def test_a_wrong_target_is_a_finding(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(base: Path, delta: Path, out: Path) -> None:
        shutil.copytree(base.parent / "target", out)
        (out / "notes.md").write_text("other text")

    monkeypatch.setattr(fuzz, "apply_delta", wrong)
    assert len(fuzz.fuzz(5, seed=1)["findings"]) == 5

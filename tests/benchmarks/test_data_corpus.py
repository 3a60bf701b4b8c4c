"""The corpus that the data engine is measured on: what it says it planted is there, and the judge counts it."""

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"data_peers.{name}", FOLDER / "data_peers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, its sources replaced by one made-up file."""
    module = load("corpus", monkeypatch)
    monkeypatch.setattr(module, "SOURCES", {"made_up": "text"})
    rng = random.Random(0)
    han = [chr(0x4E00 + i) for i in range(2000)]
    text = "".join("".join(rng.choices(han, k=rng.randint(15, 60))) + "，2024a。" for _ in range(400))
    (tmp_path / "corpora").mkdir()
    line = json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
    (tmp_path / "corpora" / "made_up.jsonl.zst").write_bytes(zstandard.compress(line))
    return module


def lines(folder: Path) -> list[str]:
    return [
        json.loads(x)["text"]
        for p in sorted((folder / "in").glob("*.jsonl"))
        for x in p.read_text(encoding="utf-8").splitlines()
    ]


def test_planted_copies_are_what_they_say(corpus: Any, tmp_path: Path) -> None:
    facts = corpus.make_corpus(tmp_path, tmp_path / "a", 400)
    texts = lines(tmp_path / "a")
    assert len(texts) == facts["documents"] == 400
    planted = list(corpus.truth(tmp_path / "a"))
    assert (
        {k: sum(p.kind == k for p in planted) for k in facts["planted"]}
        == facts["planted"]
        == {"exact": 16, "nfkc": 4, "edited": 24}
    )
    for p in planted:
        copy, original = texts[p.copy], texts[p.of]
        assert (copy == original) == (p.kind == "exact")
        assert (corpus.fold(copy) == corpus.fold(original)) == (p.kind != "edited")
        assert p.jaccard == pytest.approx(corpus.jaccard(copy, original))
    edited = [p.jaccard for p in planted if p.kind == "edited"]
    assert min(edited) > 0.5
    assert max(edited) < 1
    corpus.make_corpus(tmp_path, tmp_path / "b", 400)
    assert lines(tmp_path / "b") == texts


def test_the_judge_counts_pairs_of_which_one_went(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.make_corpus(tmp_path, tmp_path / "a", 400)
    judge = load("measure", monkeypatch).judge
    planted = list(corpus.truth(tmp_path / "a"))
    everything = set(range(400))
    assert all(row["found"] == 0 for row in judge(tmp_path / "a", everything)["planted"].values())
    kept = (
        everything - {p.copy for p in planted if p.kind == "exact"} - {next(p.of for p in planted if p.kind == "nfkc")}
    )
    found = judge(tmp_path / "a", kept)["planted"]
    assert found["exact"] == {"pairs": 16, "found": 16, "share": 1.0}
    assert found["nfkc"]["found"] == 1


def test_a_job_is_measured_with_its_descendants(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = load("measure", monkeypatch)
    child = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.4: pass"
    # The parent ends before its child: the child's time must not be lost.
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    done = measure.run_job([sys.executable, "-c", parent], cwd=tmp_path)
    assert done["cpu"] >= 0.4
    with pytest.raises(SystemExit, match="exit code 3"):
        measure.run_job([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path)

"""The stage that cleans a corpus: what its key depends on, that it goes on after a failure, that inputs are read once."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.run import Run
from pandallm.recipe.load import load_recipe
from pandallm.store import digests as file_digests

RECIPE = """\
name: stage
base: {model: nobody/nothing}
corpora:
  c:
    sources:
      a: {adapter: text, files: "RAW/a*.jsonl"}
      b: {adapter: text, files: RAW/b.jsonl}
stages:
  pretrain: {from: base, corpus: c, steps: 1, sequence_length: 64, batch_sequences: 1, optimizer: {lr: 1e-3}}
runtime: {workers: 1, device: cpu, store: STORE, runs: RUNS}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, numbers in (("a1", range(5)), ("a2", range(5, 9)), ("b", range(3, 12))):
        path = raw / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"第{i}篇"}, ensure_ascii=False) + "\n" for i in numbers), "utf-8")
        os.utime(path, (1e9, 1e9))
    text = (
        RECIPE.replace("RAW", str(raw)).replace("STORE", str(tmp_path / "store")).replace("RUNS", str(tmp_path / "r"))
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(text, "utf-8")
    return file


def key(recipe: Path, *overrides: str) -> str:
    return Run(load_recipe(recipe, overrides)).corpus("c").key


def test_the_key_depends_on_what_decides_the_bytes(recipe: Path) -> None:
    first = key(recipe)
    source = "corpora.c.sources.a"
    same = ("runtime.workers=2", "runtime.engine=ray", f"{source}.min_quality=0.5", f"{source}.licence=x", "seed=5")
    assert {key(recipe, s) for s in same} == {first}
    others = (f"{source}.max_records=3", f"{source}.held_out.documents=1", "corpora.c.dedup.kind=none")
    assert len({first, *(key(recipe, o) for o in others)}) == 4


def test_a_stage_that_failed_goes_on(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("pandallm.data.clean.write_shard", full)
        with pytest.raises(PandaError, match="is full; what is done is kept"):
            key(recipe)

    def never(*_: object) -> Any:
        raise AssertionError("cleaned again")

    with monkeypatch.context() as m:
        m.setattr("pandallm.data.clean_shard._clean", never)
        artifact = Run(load_recipe(recipe)).corpus("c")
    total = artifact.manifest["facts"]["total"]
    assert (total["kept"]["records"], total["dropped"]["duplicate"]["records"]) == (12, 6)
    assert set(artifact.manifest["files"]) == {
        "examples/00000.parquet",
        "examples/00001.parquet",
        "dropped/00001.parquet",
        "ledger.json",
        "quarantine.jsonl",
    }
    assert not list((tmp_path / "store/work").iterdir())


def test_a_second_run_reads_no_input(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(recipe)

    def never(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(file_digests, "digest_file", never)
    assert key(recipe) == first


def test_a_pattern_that_matches_nothing_stops_before_anything_is_written(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"corpora\.c\.sources\.b\.files: .*/none\*\.jsonl matches no file"):
        key(recipe, f"corpora.c.sources.b.files={tmp_path}/none*.jsonl")
    assert not (tmp_path / "store").exists()

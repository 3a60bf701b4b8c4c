"""Corpora of a recipe from every kind of origin: files, archives, tables, data sets by id; the user's own templates."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.data.corpus import corpus_examples
from pandallm.errors import BadInput
from pandallm.pipeline.run import Run
from pandallm.recipe.load import load_recipe
from pandallm.store import read_json, read_jsonl

RECIPE = """\
name: origins
base: {model: nobody/nothing}
paths: {raw: RAW}
corpora:
  mixed:
    clean: [{kind: normalize}]
    dedup: {kind: none}
    sources:
      hub: {adapter: alpaca, dataset: "${raw}/set"}
      repository: {adapter: flan, dataset: {id: "${raw}/set", files: flan.json}}
      table: {adapter: messages, files: "${raw}/chats.parquet"}
      archive: {adapter: coig, files: "${raw}/counterfactural.tar.gz"}
      blocks: {adapter: clue, files: "${raw}/clue*.txt"}
      questions: {adapter: baike_qa, files: "${raw}/qa.jsonl", templates: TEMPLATES}
stages:
  pretrain: {from: base, corpus: mixed, steps: 1, sequence_length: 64, batch_sequences: 1, optimizer: {lr: 1e-3}}
runtime: {workers: 1, device: cpu, store: STORE, runs: RUNS}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    library = pytest.importorskip("datasets", reason="needs pandallm[datasets]")
    library.disable_progress_bars()
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    raw = tmp_path / "raw"
    (raw / "set").mkdir(parents=True)
    rows = [{"instruction": f"问{i}", "input": "", "output": f"答{i}"} for i in range(3)]
    (raw / "set" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (raw / "set" / "flan.json").write_text(json.dumps([{"inputs": "Q", "targets": "A"}]))
    chat = {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]}
    pq.write_table(
        pa.Table.from_pylist([chat, {"messages": [{"role": "user", "content": None}]}]), raw / "chats.parquet"
    )
    (raw / "1.json").write_text(json.dumps({"round_0": {"response": json.dumps({"Q": "甲？", "A": "乙。"})}}, indent=1))
    with tarfile.open(raw / "counterfactural.tar.gz", "w:gz") as archive:
        archive.add(raw / "1.json", "chat/1.json")
    (raw / "clue1.txt").write_text("第一句。\n第二句。\n\n第三句。\n", encoding="utf-8")
    (raw / "qa.jsonl").write_text(json.dumps({"title": "茶？", "desc": "", "answer": "热。"}))
    (tmp_path / "own.yaml").write_text("version: 1\ntemplates: ['有人问：{question}']\n", encoding="utf-8")
    text = RECIPE.replace("RAW", str(raw)).replace("TEMPLATES", str(tmp_path / "own.yaml"))
    file = tmp_path / "recipe.yaml"
    file.write_text(text.replace("STORE", str(tmp_path / "store")).replace("RUNS", str(tmp_path / "runs")), "utf-8")
    return file


def texts(run: Run) -> dict[str, list[str]]:
    """Source -> the texts of its examples, trained turns in brackets."""
    found: dict[str, list[str]] = {}
    for e in corpus_examples(run.corpus("mixed").path):
        found.setdefault(e.source, []).append("".join(f"[{t.text}]" if t.train else t.text for t in e.turns))
    return found


def test_every_origin_gives_its_examples(recipe: Path, tmp_path: Path) -> None:
    run = Run(load_recipe(recipe))
    assert texts(run) == {
        "hub": ["问0\n[答0]", "问1\n[答1]", "问2\n[答2]"],
        "repository": ["Q\n[A]"],
        "table": ["你好\n[你好！]"],
        "archive": ["甲？\n[乙。]"],
        "blocks": ["[第一句。\n第二句。]", "[第三句。]"],
        "questions": ["有人问：茶？\n[热。]"],
    }
    folder = run.corpus("mixed").path
    (broken,) = read_jsonl(folder / "quarantine.jsonl")
    assert (broken["file"], broken["line"]) == ("chats.parquet", 2)
    assert "message 1 has no `content`" in broken["error"]
    assert read_json(folder / "ledger.json")["total"]["records"] == 10
    assert run.records[0].artifact.manifest["facts"]["revisions"] == {"hub": None, "repository": None}
    # A second run reads nothing again; other templates make another corpus.
    again = Run(load_recipe(recipe))
    again.corpus("mixed")
    assert again.records[0].reused
    (tmp_path / "own.yaml").write_text("version: 1\ntemplates: ['求答：{question}']\n", encoding="utf-8")
    other = Run(load_recipe(recipe))
    assert texts(other)["questions"] == ["求答：茶？\n[热。]"]
    assert not other.records[0].reused


def test_a_data_set_that_is_not_there_stops_before_anything_is_written(recipe: Path, tmp_path: Path) -> None:
    changed = load_recipe(recipe, [f"corpora.mixed.sources.hub.dataset={{id: {tmp_path}/raw/set, split: nope}}"])
    with pytest.raises(BadInput, match=r"corpora\.mixed\.sources\.hub\.dataset: .*nope"):
        Run(changed).check_inputs()
    assert not (tmp_path / "store").exists()

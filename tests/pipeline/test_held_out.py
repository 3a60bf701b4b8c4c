"""Held-out windows as a stage of the store, and a run that watches them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pandallm.errors import BadInput
from pandallm.evaluate.bits import read_held_out, score_documents
from pandallm.model.folder import load_model, load_tokenizer
from pandallm.pipeline.data import build_data
from pandallm.pipeline.graph import stage_graph
from pandallm.pipeline.held_out import _spaced, held_out_settings, write_windows
from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.stored import StoredStages
from pandallm.pipeline.run import Run
from pandallm.progress import SILENT
from pandallm.recipe.load import load_recipe
from pandallm.store import read_json
from pandallm.train.forward import Forward
from pandallm.train.held_out import HeldOutWindows
from pandallm.train.world import World
from tests.pipeline.data_example import write_recipe

WATCH = [
    "stages.pretrain.steps=4", "stages.pretrain.watch={every: 2}", "evaluate=null",
    "stages.instruct.steps=2", "stages.instruct.watch={every: 1, corpora: [talks, texts], documents: 3, patience: 1, keep_best: true}",
    "corpora.talks.held_out={documents: 2}",
]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("watch"))


def test_a_run_watches_held_out_text_and_takes_it_from_the_store_again(recipe: Path) -> None:
    run = Run(load_recipe(str(recipe), WATCH))
    run.execute()
    names = [r.name for r in run.records]
    assert names.index("held out instruct") < names.index("train pretrain")
    facts = {r.name: r.artifact.manifest["facts"] for r in run.records}
    assert facts["held out pretrain"]["documents"] == 4  # two of each source
    lines = [json.loads(line) for line in (run.folder / "held_out" / "instruct.jsonl").read_text().splitlines()]
    assert {s.split("/")[0] for s in lines[0]["by_source"]} == {"talks", "texts"}
    assert facts["train instruct"]["held_out"]["start"] == lines[0]["bits_per_byte"]
    # What instruct starts from is what pretrain ended with; both watch other text, so only the documents that they share compare.
    stored, tokens = StoredStages(run.recipe), facts["held out instruct"]["tokens"]
    assert stored.watched_tokens("instruct", run.recipe.stages["instruct"], 1e9) == tokens
    again = Run(load_recipe(str(recipe), WATCH))
    again.execute()
    assert all(r.reused for r in again.records)
    # Without `watch` training is another artifact with the same weights.
    plain = Run(load_recipe(str(recipe), [o for o in WATCH if "instruct.watch" not in o and "pretrain.watch" not in o]))
    plain.execute()
    digests = {r.name: r.artifact.digest for r in run.records}
    assert {r.name: r.artifact.digest for r in plain.records}["train pretrain"] == digests["train pretrain"]


def test_a_plan_reckons_with_held_out_text_before_it_is_there(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(recipe), [*WATCH, f"runtime.store={tmp_path}"])
    stored = StoredStages(loaded)
    counts = {name: stored.watched_tokens(name, stage, 10.0) for name, stage in loaded.stages.items()}
    assert counts == {"pretrain": 40.0, "instruct": 50.0}  # two of each of two sources; two and three documents
    shares = load_recipe(str(recipe), [*WATCH, f"runtime.store={tmp_path}", "corpora.talks.held_out={share: 0.1}"])
    assert (
        StoredStages(shares).watched_tokens("instruct", shares.stages["instruct"], 10.0) == 60.0
    )  # at most three of each
    plan = {s["name"]: s["hours"] for s in plan_recipe(loaded)["stages"]}
    bare = load_recipe(str(recipe), [o for o in WATCH if "watch" not in o] + [f"runtime.store={tmp_path}"])
    for stage in plan_recipe(bare)["stages"]:
        assert plan[stage["name"]]["seconds"] > stage["hours"]["seconds"]
        assert plan[stage["name"]]["seconds_per_step"] == stage["hours"]["seconds_per_step"]


def test_the_graph_names_what_a_watching_run_makes(recipe: Path) -> None:
    loaded = load_recipe(str(recipe), WATCH)
    run = Run(loaded)
    run.execute()
    nodes = {node.name: node for node in stage_graph(loaded)}
    assert set(nodes) == {r.name for r in run.records}
    for record in run.records:
        assert nodes[record.name].settings == record.artifact.manifest["settings"], record.name
        assert set(nodes[record.name].inputs) == set(record.artifact.manifest["inputs"]) or record.kind in (
            "clean",
            "import",
        )


def test_data_build_makes_the_windows_so_that_training_finds_them(recipe: Path) -> None:
    overrides = [*WATCH, "seed=3"]
    build_data(load_recipe(str(recipe), overrides))
    run = Run(load_recipe(str(recipe), overrides))
    run.execute()
    assert {r.name for r in run.records if not r.reused} == {"train pretrain", "train instruct"}


def test_bits_of_the_windows_are_those_of_the_evaluation(recipe: Path, tmp_path: Path) -> None:
    run = Run(load_recipe(str(recipe), WATCH))
    corpus, (base, _) = run.corpus("texts").path, run.start()
    facts = write_windows(
        {"texts": corpus},
        base,
        tmp_path / "w",
        decide=["texts"],
        documents=None,
        sequence_length=64,
        name="pretrain",
        progress=SILENT,
    )
    documents = read_held_out(corpus)
    model = load_model(base)
    found = {i: v for b in score_documents(model, load_tokenizer(base), documents, 63, 500) for i, v in b}
    windows = HeldOutWindows(tmp_path / "w")
    bits = windows.bits(Forward(model, torch.float32), 256, World(torch.device("cpu")))
    assert sum(bits) == pytest.approx(sum(b for b, _ in found.values()), rel=1e-5)
    assert facts == {
        "windows": len(windows.lengths),
        "documents": len(documents),
        "bytes": sum(d.bytes for d in documents),
        "tokens": sum(n for _, n in found.values()),
    }
    assert max(windows.lengths) <= 64
    assert int(np.sum(windows.scored)) == facts["tokens"]
    assert read_json(tmp_path / "w" / "held_out.json")["sequence_length"] == 64


def test_documents_are_evenly_spaced() -> None:
    everything = list(range(10))
    assert _spaced(everything, 4) == [0, 2, 5, 7]  # type: ignore[arg-type,comparison-overlap]
    assert _spaced(everything, 10) == _spaced(everything, None) == everything  # type: ignore[arg-type,comparison-overlap]


def test_a_corpus_that_keeps_nothing_is_refused_before_anything_is_read(recipe: Path) -> None:
    with pytest.raises(
        BadInput, match=r"stages\.instruct\.watch: corpus 'talks' keeps no documents; set corpora\.talks"
    ):
        load_recipe(str(recipe), ["stages.instruct.watch={}"])
    with pytest.raises(
        BadInput, match=r"stages\.pretrain\.watch\.corpora\.0: unknown corpus 'text'\. Did you mean 'texts'"
    ):
        load_recipe(str(recipe), ["stages.pretrain.watch={corpora: [text]}"])
    load_recipe(str(recipe), ["stages.pretrain.watch={}"])
    with pytest.raises(BadInput, match=r"pretrain\.watch\.decide\.0: unknown watched corpus 'talks'\. Known: texts"):
        load_recipe(str(recipe), ["stages.pretrain.watch={decide: [talks]}"])


@pytest.mark.parametrize(
    ("watch", "decide"),
    [
        ("{}", ["talks"]),
        ("{corpora: [texts, talks]}", ["talks"]),
        ("{corpora: [texts]}", ["texts"]),
        ("{corpora: [texts, talks], decide: [texts]}", ["texts"]),
    ],
)
def test_the_own_corpus_decides_where_it_is_watched(recipe: Path, watch: str, decide: list[str]) -> None:
    loaded = load_recipe(str(recipe), ["corpora.talks.held_out={documents: 2}", f"stages.instruct.watch={watch}"])
    assert held_out_settings(loaded.stages["instruct"], "talks")["decide"] == decide


def test_a_corpus_whose_documents_are_all_gone_is_refused(recipe: Path, tmp_path: Path) -> None:
    run = Run(load_recipe(str(recipe)))
    with pytest.raises(BadInput, match=r"stages\.x\.watch: corpus talks holds no held-out document"):
        write_windows(
            {"talks": run.corpus("talks").path}, run.start()[0], tmp_path / "w",
            decide=["talks"], documents=9, sequence_length=64, name="x", progress=SILENT,
        )  # fmt: skip


def test_the_linter_speaks_before_the_first_stage_trains(recipe: Path) -> None:
    class Said:
        said: list[str] = []
        task = staticmethod(SILENT.task)

        def say(self, text: str) -> None:
            self.said.append(text)

    said = Said()
    Run(load_recipe(str(recipe), [*WATCH, "seed=4"]), said).execute()
    few = [i for i, s in enumerate(said.said) if "only 2 steps: give more text" in s or "only 4 steps: give" in s]
    trained = next(i for i, s in enumerate(said.said) if s.startswith("train pretrain: done"))
    assert len(few) == 2
    assert max(few) < trained
    assert said.said[few[0]].startswith("train pretrain: only 4 steps")


def test_a_function_of_ones_own_gets_all_lines_of_a_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held_out_test_hook.py").write_text(
        "seen = []\ndef log(stage, line):\n    seen.append((stage, line['step'], 'bits_per_byte' in line))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Run(load_recipe(str(recipe), [*WATCH, "seed=5", "runtime.tracking=[held_out_test_hook:log]"])).execute()
    seen = sys.modules.pop("held_out_test_hook").seen
    assert [s[1:] for s in seen if s[0] == "train pretrain"] == [
        (0, True), (1, False), (2, False), (2, True), (3, False), (4, False), (4, True),
    ]  # fmt: skip


def test_tracking_is_checked_before_anything_is_written(recipe: Path, tmp_path: Path) -> None:
    run = Run(load_recipe(str(recipe), ["runtime.tracking=[wandbs]", f"runtime.store={tmp_path / 'none'}"]))
    with pytest.raises(BadInput, match=r"runtime\.tracking: 'wandbs' is not known\. Did you mean 'wandb'"):
        run.execute()
    assert not (tmp_path / "none").exists()

"""Held-out text while a stage trains: the same bits as the evaluation, no influence on training, exact resume, early stop."""

import itertools
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.evaluate.bits import Document, score_documents
from pandallm.model.folder import load_model, load_tokenizer
from pandallm.pipeline.held_out import write_windows
from pandallm.progress import SILENT
from pandallm.train.forward import Forward
from pandallm.train.held_out import HeldOutWatch, HeldOutWindows
from pandallm.train.loop import train_stage
from pandallm.train.spec import LoraMethod, OptimizerSpec, WatchSpec
from pandallm.train.world import World
from tests.train.ranks import on_ranks
from tests.train.tiny import (
    AfterSteps,
    count_steps,
    first_fit,
    invented_examples,
    make_base,
    tiny_spec,
    weights,
    write_packs,
)

DOCUMENTS = [
    Document("a", "wiki", "zh", (("湖水很蓝，小船不动。" * 9, True),)),
    Document("b", "qa", "zh", (("问：谁？\n", False), ("小明。", True))),
    Document("c", "qa", "en", (("who? ", False), ("me and you, " * 5, True))),
    Document("d", "wiki", "zh", (("山。", True),)),
]
WORLD = World(torch.device("cpu"))


@pytest.fixture(scope="session")
def held_out(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_windows(base, tmp_path_factory.mktemp("held_out") / "windows")


def make_windows(base: Path, out: Path) -> Path:
    import pandallm.evaluate.bits as bits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "read_held_out", lambda folder: DOCUMENTS)
        write_windows(
            {"texts": Path()},
            base,
            out,
            decide=["texts"],
            documents=None,
            sequence_length=64,
            name="base",
            progress=SILENT,
        )
    return out


def lines_of(work: Path) -> list[dict[str, Any]]:
    """held_out.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (work / "logs" / "held_out.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def by_evaluation(model: Any, tokenizer: Any) -> list[float]:
    """Bits of each document as the evaluation counts them."""
    found = {i: v for batch in score_documents(model, tokenizer, DOCUMENTS, 63, 300) for i, v in batch}
    return [found[i][0] for i in range(len(DOCUMENTS))]


def test_bits_are_those_of_the_evaluation_whatever_the_micro_batch_and_variant(base: Path, held_out: Path) -> None:
    model, windows = load_model(base), HeldOutWindows(held_out)
    assert [(g["source"], g["language"], g["documents"]) for g in windows.groups] == [
        ("wiki", "zh", 2), ("qa", "zh", 1), ("qa", "en", 1),
    ]  # fmt: skip
    a, b, c, d = by_evaluation(model, load_tokenizer(base))
    for layers in ("plain", "onednn"):
        for tokens in (1, 100, 10_000):
            bits = windows.bits(Forward(model, torch.float32, {"layers": layers}), tokens, WORLD)
            assert bits == pytest.approx([a + d, b, c], rel=1e-5)
    assert [g["bytes"] for g in windows.groups] == [DOCUMENTS[0].bytes + DOCUMENTS[3].bytes, 9, 60]


def test_bfloat16_scores_nearly_the_same_and_leaves_the_mode_alone(base: Path, held_out: Path) -> None:
    model, windows = load_model(base), HeldOutWindows(held_out)
    exact = windows.bits(Forward(model, torch.float32), 1000, WORLD)
    model.train()
    assert windows.bits(Forward(model, torch.bfloat16), 1000, WORLD) == pytest.approx(exact, rel=0.02)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_watching_changes_no_weight_and_its_lines_tell_sources_and_languages(
    stage: Callable[..., Any], held_out: Path, tmp_path: Path
) -> None:
    facts = stage("watched", spec={"watch": WatchSpec(every=8)}, held_out=held_out)
    stage("plain")
    for name, tensor in weights(tmp_path / "plain").items():
        assert torch.equal(weights(tmp_path / "watched")[name], tensor)
    lines = lines_of(tmp_path / "watched")
    assert [line["step"] for line in lines] == [0, 8, 16, 20]
    assert [set(line["by_source"]) for line in lines] == [{"wiki", "qa"}] * 4
    assert all(line["by_corpus"] == {"texts": line["bits_per_byte"]} for line in lines)
    assert set(lines[0]["by_language"]) == {"zh", "en"}
    total = sum(d.bytes for d in DOCUMENTS)
    english = DOCUMENTS[2].bytes
    by_language = lines[3]["by_language"]
    assert lines[3]["bits_per_byte"] == pytest.approx(
        (by_language["en"] * english + by_language["zh"] * (total - english)) / total
    )
    model = load_model(tmp_path / "watched" / "model")
    assert lines[3]["bits_per_byte"] * total == pytest.approx(
        sum(by_evaluation(model, load_tokenizer(tmp_path / "watched" / "model"))), rel=1e-5
    )
    assert facts["held_out"] == {
        "start": lines[0]["bits_per_byte"],
        "last": lines[3]["bits_per_byte"],
        "best": min(line["bits_per_byte"] for line in lines[1:]),
        "best_step": min(lines[1:], key=lambda line: line["bits_per_byte"])["step"],
        "stopped_early": False,
        "kept_step": None,
    }


#: On packs that turn from the kind of the held-out text to another (`turning`).
TURNING = {"optimizer": OptimizerSpec(lr=3e-2, warmup=0, schedule="constant"), "watch": WatchSpec(every=2, patience=2)}
BYTES = 1000
KEEP = {**TURNING, "watch": WatchSpec(every=2, patience=2, keep_best=True)}


def make_turning(folder: Path) -> None:
    """`folder/packs`: ten steps of rising ids, then ten of falling ones. `folder/windows`: more rising ones, held out."""
    rising = invented_examples(160, seed=5)
    falling = [(ids[::-1], mask) for ids, mask in invented_examples(80, seed=6)]
    first, second = first_fit(rising[:80], 64)[:20], first_fit(falling, 64)[:20]
    rows = first + [[160 + i for i in row] for row in second]
    write_packs(folder / "packs", rows, rising + falling, batch_sequences=2)
    unseen, out = rising[80:], folder / "windows"
    out.mkdir()
    lengths = [len(ids) for ids, _ in unseen]
    np.save(out / "input_ids.npy", np.array([t for ids, _ in unseen for t in ids], np.uint32))
    np.save(out / "scored.npy", np.array([m for _, mask in unseen for m in mask], np.uint8))
    np.save(out / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    np.save(out / "groups.npy", np.zeros(len(unseen), np.uint16))
    group = {"corpus": "c", "source": "s", "language": "zh", "documents": len(unseen), "bytes": BYTES, "tokens": 0}
    (out / "held_out.json").write_text(json.dumps({"groups": [group], "decide": ["c"], "sequence_length": 64}))


@pytest.fixture(scope="session")
def turning(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("turning")
    make_turning(folder)
    return {"packs": folder / "packs", "held_out": folder / "windows"}


def test_stops_early_and_says_so(stage: Callable[..., Any], turning: dict[str, Path], tmp_path: Path) -> None:
    class Said:
        def __init__(self) -> None:
            self.said: list[str] = []

        def say(self, text: str) -> None:
            self.said.append(text)

        task = staticmethod(SILENT.task)

    said = Said()
    facts = stage(spec=TURNING, **turning, progress=said)
    lines = lines_of(tmp_path / "work")
    values = [line["bits_per_byte"] for line in lines[1:]]
    best = values.index(min(values))
    assert len(values) == best + 3  # two evaluations without a new best
    assert facts["steps"] == 2 * (best + 3) < 20
    assert facts["held_out"]["stopped_early"]
    assert facts["held_out"]["best_step"] == 2 * (best + 1)
    assert [line["best"] for line in lines[1:]][best:] == [True, False, False]
    assert said.said == [
        f"train: stopped after step {facts['steps']} of 20, held-out text was best after step {2 * (best + 1)}"
    ]


def test_keeps_the_best_weights(stage: Callable[..., Any], turning: dict[str, Path], tmp_path: Path) -> None:
    facts = stage(spec=KEEP, **turning)
    best = facts["held_out"]["kept_step"]
    assert 0 < best < facts["steps"]
    windows = HeldOutWindows(turning["held_out"])
    model = load_model(tmp_path / "work" / "model")
    bits = sum(windows.bits(Forward(model, torch.float32), 64, WORLD))
    assert bits / BYTES == pytest.approx(facts["held_out"]["best"], rel=1e-6)
    # A stage of so many steps ends with the same weights: its rate is constant.
    short = tmp_path / "short"
    short.mkdir()
    for file in turning["packs"].iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    facts_short = json.loads((short / "pack.json").read_text())
    (short / "pack.json").write_text(json.dumps({**facts_short, "steps": best}))
    np.save(short / "order.npy", np.load(short / "order.npy")[: 2 * best])
    stage("short-run", packs=short, spec={"optimizer": TURNING["optimizer"]})
    for name, tensor in weights(tmp_path / "short-run").items():
        assert torch.equal(weights(tmp_path / "work")[name], tensor), name


def test_keeps_the_best_adapters(stage: Callable[..., Any], turning: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs pandallm[lora]")
    facts = stage(spec={**KEEP, "method": LoraMethod(kind="lora", rank=4)}, **turning)
    assert facts["held_out"]["kept_step"] < facts["steps"]
    model = load_model(tmp_path / "work" / "model")
    bits = sum(HeldOutWindows(turning["held_out"]).bits(Forward(model, torch.float32), 64, WORLD))
    assert bits / BYTES == pytest.approx(facts["held_out"]["best"], rel=1e-5)


@pytest.mark.parametrize("stops", [(1,), (4, 13), (5, 6, 12)])
def test_going_on_decides_as_one_that_was_never_stopped(
    stage: Callable[..., Any],
    turning: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stops: tuple[int, ...],
) -> None:
    whole = stage("whole", spec=KEEP, **turning)
    done = count_steps(monkeypatch)
    assert max(stops) < whole["steps"]
    for before, stop in itertools.pairwise((0, *stops)):
        done.clear()
        with pytest.raises(Interrupted):
            stage("cut", spec=KEEP, **turning, deadline=AfterSteps(done, stop - before))
    facts = stage("cut", spec=KEEP, **turning)
    assert facts["resumed_from"] == list(stops)
    assert facts["held_out"] == whole["held_out"]
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "cut")[name], tensor), name


def test_lines_that_were_cut_do_not_count_in_the_next_checkpoint(base: Path, held_out: Path, tmp_path: Path) -> None:
    """A kill after an evaluation, a checkpoint before the next one, another kill."""

    def watch(state: dict[str, Any] | None) -> HeldOutWatch:
        one = HeldOutWatch(held_out, WatchSpec(), tmp_path, WORLD, 64, "train base")
        one.open(state)
        return one

    forward = Forward(load_model(base), torch.float32)
    first = watch(None)
    first.measure(forward, 0, 0.0)
    state = first.state()
    first.measure(forward, 100, 0.0)
    first.close()
    second = watch(state)
    later = second.state()
    second.close()
    third = watch(later)
    third.measure(forward, 100, 0.0)
    third.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [0, 100]


class Died(Exception):
    """A kill at this place."""


@pytest.mark.parametrize("place", ["before the marker", "after the marker", "in the removal", "in the shard"])
def test_a_death_around_the_best_weights_changes_nothing(
    stage: Callable[..., Any], turning: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The newest checkpoint is older than the best weights that are being written; they are made again."""
    import pandallm.train.best as best

    whole = stage("whole", spec=KEEP, **turning)
    done = count_steps(monkeypatch)
    with pytest.raises(Interrupted):
        stage("cut", spec=KEEP, **turning, deadline=AfterSteps(done, 2))
    assert sorted(p.name for p in (tmp_path / "cut" / ".best").iterdir()) == ["step-00000002"]

    def die(*_: Any, **__: Any) -> None:
        raise Died

    original = best.write_json
    with monkeypatch.context() as patch:
        if place == "before the marker":
            patch.setattr(best, "write_json", die)
        elif place == "after the marker":
            patch.setattr(best, "write_json", lambda *a: (original(*a), die()))
        elif place == "in the removal":
            remove = best.shutil.rmtree
            removal = lambda path, ignore_errors=False: remove(path, ignore_errors) if ignore_errors else die()  # noqa: E731
            patch.setattr(best, "shutil", types.SimpleNamespace(rmtree=removal))
        else:
            patch.setattr(best, "write_shard", lambda path, parts: (path.write_bytes(b"half"), die()))
        with pytest.raises(Died):
            stage("cut", spec=KEEP, **turning)
    # What the checkpoint names is still there.
    assert (tmp_path / "cut" / ".best" / "step-00000002" / "complete.json").is_file()
    facts = stage("cut", spec=KEEP, **turning)
    assert facts["held_out"] == whole["held_out"]
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "cut")[name], tensor), name


def test_only_the_deciding_corpora_decide(base: Path, held_out: Path, tmp_path: Path) -> None:
    """Two corpora are watched; the one that decides gets better while the other gets worse."""
    folder = tmp_path / "windows"
    shutil.copytree(held_out, folder)
    facts = json.loads((folder / "held_out.json").read_text())
    for group in facts["groups"]:
        group["corpus"] = "old" if group["language"] == "en" else "new"
    (folder / "held_out.json").write_text(json.dumps({**facts, "decide": ["new"]}))
    watch = HeldOutWatch(folder, WatchSpec(patience=1), tmp_path / "work", WORLD, 64, "train base")
    watch.open(None)
    bytes_of = [g["bytes"] for g in facts["groups"]]
    forward = Forward(load_model(base), torch.float32)
    for step, bits in ((1, [300.0, 30.0, 100.0]), (2, [200.0, 20.0, 900.0]), (3, [210.0, 20.0, 100.0])):
        watch.windows.bits = lambda *_, bits=bits: bits  # type: ignore[method-assign,misc]
        watch.measure(forward, step, 0.0)
        assert watch.stop == (step == 3)
    watch.close()
    lines = lines_of(tmp_path / "work")
    assert [line["best"] for line in lines] == [True, True, False]
    assert lines[1]["bits_per_byte"] == lines[1]["by_corpus"]["new"] == pytest.approx(220 / sum(bytes_of[:2]))
    assert lines[1]["by_corpus"]["old"] == pytest.approx(900 / bytes_of[2])
    assert set(lines[1]["by_source"]) == {"new/wiki", "new/qa", "old/qa"}


def test_a_checkpoint_that_is_being_removed_names_nothing(
    held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = HeldOutWatch(held_out, WatchSpec(keep_best=True), tmp_path, WORLD, 64, "train base")
    kept = tmp_path / ".checkpoints" / "step-00000004"
    kept.mkdir(parents=True)
    (kept / "state.json").write_text(json.dumps({"state": {"held_out": {"best_step": 3}}}))
    monkeypatch.setattr("pandallm.train.held_out.complete_checkpoints", lambda work: [tmp_path / "gone", kept])
    assert watch._needed() == {0, 3}


def test_text_without_a_finite_loss_stops(base: Path, held_out: Path, tmp_path: Path) -> None:
    model = load_model(base)
    watch = HeldOutWatch(held_out, WatchSpec(), tmp_path, WORLD, 64, "train base")
    watch.open(None)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(PandaError, match="train base: held-out text has no finite loss after step 4"):
        watch.measure(Forward(model, torch.float32), 4, 1.0)
    watch.close()


def test_broken_folders_are_refused(stage: Callable[..., Any], held_out: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`watch` needs a folder of held-out windows"):
        stage(spec={"watch": WatchSpec()})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "held_out.json").write_bytes((held_out / "held_out.json").read_bytes())
    with pytest.raises(BadInput, match="no folder of held-out windows"):
        stage("other", spec={"watch": WatchSpec()}, held_out=tmp_path / "broken")


def _watched(world: World, root: str, work: str, sharding: str) -> Any:
    folder = Path(root)
    return train_stage(
        folder / "base/model",
        folder / "packs",
        tiny_spec(**KEEP),
        folder / work,
        seed=1,
        device="cpu",
        threads=1,
        world=world,
        sharding=sharding,
        held_out=folder / "windows",
    )


def test_several_ranks_score_together_and_keep_the_same_best(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    make_turning(tmp_path)
    one = _watched(WORLD, str(tmp_path), "one", "auto")
    kinds = ("replicate", "shard_gradients", "shard_all")
    results = on_ranks(2, [(_watched, {"root": str(tmp_path), "work": k, "sharding": k}) for k in kinds])
    for kind, (facts, nothing) in zip(kinds, results, strict=True):
        assert nothing == {}
        assert facts["held_out"]["best_step"] == one["held_out"]["best_step"]
        assert facts["held_out"]["kept_step"] == one["held_out"]["kept_step"]
        assert facts["steps"] == one["steps"]
        for mine, theirs in zip(lines_of(tmp_path / kind), lines_of(tmp_path / "one"), strict=True):
            assert mine["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=1e-4)
        for name, tensor in weights(tmp_path / "one").items():
            torch.testing.assert_close(weights(tmp_path / kind)[name], tensor, atol=2e-3, rtol=1e-2)

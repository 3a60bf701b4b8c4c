"""Promise 2 over processes: the same losses, norms and weights on one rank and on several, however weights lie on them.

The trajectories stand in tests/golden/trajectories: one JSON line a step with loss and norm of the gradient, and must be
met within LOSS and NORM (relative). They are float32 on one thread; other processors round otherwise.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.errors import BadInput, Interrupted
from pandallm.train.loop import train_stage
from pandallm.train.spec import LoraMethod
from pandallm.train.world import World
from tests.train.ranks import on_ranks
from tests.train.tiny import invented_examples, make_base, metrics, tiny_spec, weights, write_packs

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "trajectories"
LOSS, NORM = 2e-5, 1e-3
written: set[str] = set()
STEPS, EXAMPLES = 6, 16  # steps, examples of a step
SHARDINGS = ("replicate", "shard_gradients", "shard_all", "hybrid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/model; packed/ (two examples a row, 8 rows a step) and single/ (one a row, 16 rows a step): the same examples."""
    root = tmp_path_factory.mktemp("ranks")
    make_base(root / "base")
    examples = invented_examples(STEPS * EXAMPLES, seed=7)
    pairs = [[i, i + 1] for i in range(0, len(examples), 2)]
    write_packs(root / "packed", pairs, examples, batch_sequences=EXAMPLES // 2)
    write_packs(root / "single", [[i] for i in range(len(examples))], examples, batch_sequences=EXAMPLES)
    return root


def train(world: World | None, root: Path, work: str, packs: str = "packed", **changes: Any) -> Any:
    settings = {"epochs": 1, "micro_batch_tokens": 100} | changes.pop("spec", {})
    # As `panda run` starts it: two nodes of one process each, where hybrid is tried on two ranks.
    if "nodes" in changes and world:
        os.environ["LOCAL_WORLD_SIZE"] = str(world.size // changes.pop("nodes"))
    given = {"seed": 1, "device": "cpu", "threads": 1} | changes
    return train_stage(root / "base/model", root / packs, tiny_spec(**settings), root / work, world=world, **given)


def golden(name: str, work: Path) -> None:
    """Compare with the stored trajectory. PANDA_WRITE_GOLDEN=1 writes the first one anew: only where a change of the loss is meant."""
    lines = [{"step": m["step"], "loss": m["loss"], "grad_norm": m["grad_norm"]} for m in metrics(work)]
    path = GOLDEN / f"{name}.jsonl"
    if os.environ.get("PANDA_WRITE_GOLDEN") and name not in written:
        written.add(name)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert [s["step"] for s in stored] == [line["step"] for line in lines]
    for s, line in zip(stored, lines, strict=True):
        assert line["loss"] == pytest.approx(s["loss"], rel=LOSS), line
        assert line["grad_norm"] == pytest.approx(s["grad_norm"], rel=NORM), line


def near(a: Path, b: Path) -> None:
    # AdamW divides by the root of the second moment, which blows rounding up where gradients are near zero.
    for name, tensor in weights(b).items():
        torch.testing.assert_close(weights(a)[name], tensor, atol=2e-4, rtol=1e-3)


def test_one_process_however_it_is_cut(folder: Path) -> None:
    train(None, folder, "1x8", spec={"micro_batch_tokens": 4096})
    train(None, folder, "8x1", spec={"micro_batch_tokens": 1})
    train(None, folder, "single", packs="single")
    for work in ("1x8", "8x1", "single"):
        golden("full", folder / work)


def one_after_the_other(world: World, root: Path, work: str) -> tuple[float, float]:
    """Train where whole models of both ranks would fill the machine. When this rank began and ended to load and cut its own."""
    import pandallm.train.sharding as sharding
    from pandallm.model import folder

    times: list[float] = []
    host_bytes, load, cut = sharding.host_bytes, folder.load_model, sharding.shard

    def timed_load(*a: Any, **k: Any) -> Any:
        times.append(time.monotonic())
        return load(*a, **k)

    def timed_cut(*a: Any, **k: Any) -> Any:
        now = cut(*a, **k)
        times.append(time.monotonic())
        return now

    sharding.host_bytes, folder.load_model, sharding.shard = (lambda: 1.0), timed_load, timed_cut
    try:
        train(world, root, work, sharding="shard_all")
    finally:
        sharding.host_bytes, folder.load_model, sharding.shard = host_bytes, load, cut
    return times[0], times[1]


def test_two_and_three_ranks_and_every_sharding(folder: Path) -> None:
    lora = LoraMethod(kind="lora", rank=4)
    train(None, folder, "one")
    train(None, folder, "one-lora", spec={"method": lora})
    train(None, folder, "one-bfloat16", spec={"dtype": "bfloat16"})
    golden("lora", folder / "one-lora")
    jobs: list[Any] = []
    for kind in SHARDINGS:
        more = {"nodes": 2} if kind == "hybrid" else {}
        jobs.append((train, {"root": folder, "work": f"2-{kind}", "sharding": kind, **more}))
    single = {"packs": "single", "sharding": "replicate", "spec": {"micro_batch_tokens": 30}}
    jobs.append((train, {"root": folder, "work": "2-single", **single}))
    for name, spec in (
        ("lora", {"method": lora}),
        ("bfloat16", {"dtype": "bfloat16"}),
        ("saved", {"gradient_checkpointing": True}),
    ):
        jobs.append((train, {"root": folder, "work": f"2-{name}", "sharding": "shard_all", "spec": spec}))
    jobs.append((one_after_the_other, {"root": folder, "work": "2-turns"}))
    facts = on_ranks(2, jobs)
    (first, second) = sorted(facts.pop())
    assert first[1] <= second[0], "both held a whole model at the same time"
    for told, kind in zip(facts, SHARDINGS, strict=False):
        assert told[0]["processes"] == 2
        assert told[0]["sharding"] == kind
        assert told[0]["steps"] == STEPS
        assert told[0]["final_loss"] == metrics(folder / f"2-{kind}")[-1]["loss"]
    assert all(of_job[1] == {} for of_job in facts)
    on_ranks(3, [(train, {"root": folder, "work": "3", "sharding": "shard_gradients"})])
    for work in (*(f"2-{kind}" for kind in SHARDINGS), "2-single", "2-saved", "2-turns", "3"):
        golden("full", folder / work)
        near(folder / work, folder / "one")
    golden("lora", folder / "2-lora")
    near(folder / "2-lora", folder / "one-lora")
    assert (folder / "2-lora/adapter/adapter_model.safetensors").exists()
    half, one = metrics(folder / "2-bfloat16"), metrics(folder / "one-bfloat16")
    assert [m["loss"] for m in half] == pytest.approx([m["loss"] for m in one], rel=5e-3)


STOPPED = 0


def stopped_after(world: World, steps: int, **arguments: Any) -> list[int]:
    """Train until the last rank wants to stop after `steps` steps. Returns what was read in each step, and STOPPED."""
    import pandallm.train.step as step

    one_step, seen = step.optimizer_step, list[int]()

    def counted(forward: Any, optimizer: Any, share: Any, world: World, **named: Any) -> Any:
        seen.append(hash(share.example_ids))
        return one_step(forward, optimizer, share, world, **named)

    class Deadline(float):
        def __le__(self, now: float) -> bool:
            return len(seen) >= steps and world.rank == world.size - 1

    step.optimizer_step = counted
    try:
        train(world if world.size > 1 else None, deadline=Deadline(0), **arguments)
    except Interrupted:
        seen.append(STOPPED)
    finally:
        step.optimizer_step = one_step
    return seen


def test_resumed_on_other_numbers_of_ranks(folder: Path) -> None:
    """2 ranks, then 1, then 3, then 2 in another sharding: the same samples in the same steps, within tolerance the same weights."""
    alone = World(torch.device("cpu"))
    whole = stopped_after(alone, 99, root=folder, work="whole")
    assert len(whole) == STEPS
    parts = on_ranks(2, [(stopped_after, {"steps": 2, "root": folder, "work": "parts", "sharding": "shard_all"})])[0]
    assert parts[0] == parts[1] == [*whole[:2], STOPPED]
    assert not (folder / "parts/model").exists()
    assert stopped_after(alone, 1, root=folder, work="parts") == [*whole[2:3], STOPPED]
    third = on_ranks(3, [(stopped_after, {"steps": 2, "root": folder, "work": "parts", "sharding": "shard_gradients"})])
    assert third[0][2] == [*whole[3:5], STOPPED]
    last = on_ranks(2, [(stopped_after, {"steps": 99, "root": folder, "work": "parts", "sharding": "replicate"})])
    assert last[0][0] == whole[5:]
    golden("full", folder / "parts")
    near(folder / "parts", folder / "whole")
    assert [m["step"] for m in metrics(folder / "parts")] == list(range(1, STEPS + 1))


def refused(world: World, **arguments: Any) -> str:
    try:
        train(world, **arguments)
    except BadInput as e:
        return str(e)
    return ""


def test_more_ranks_than_rows_are_refused(folder: Path) -> None:
    examples = invented_examples(4)
    write_packs(folder / "few", [[0], [1], [2], [3]], examples, batch_sequences=2)
    told = on_ranks(3, [(refused, {"root": folder, "work": "few-work", "packs": "few"})])[0]
    assert told[0] == told[2]
    assert "A step has 2 rows (batch_sequences), too few for 3 processes: start at most 2." in told[0]

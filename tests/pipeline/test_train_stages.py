"""`panda train` from the inside and under torchrun: prepared stages, alone, on local processes, as ranks."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.pipeline.data import build_data
from pandallm.pipeline.run import Run
from pandallm.pipeline.train_stages import _check_same, _train_together, train_stages
from pandallm.pipeline.training import local_processes
from pandallm.recipe.load import load_recipe
from pandallm.recipe.spec import Recipe, RuntimeSpec
from pandallm.store import Store, read_jsonl
from pandallm.train.world import World
from tests.pipeline.data_example import write_recipe
from tests.train.ranks import on_ranks

#: The commands of docs/multi-node.md, `torchrun` left out.
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "multi-node.md").read_text(encoding="utf-8")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's file; its data is built."""
    file = write_recipe(tmp_path_factory.mktemp("train"))
    build_data(load_recipe(str(file)))
    return file


def recipe(file: Path, *overrides: str) -> Recipe:
    return load_recipe(str(file), list(overrides))


def torchrun(lines: list[str], file: Path, *more: str) -> list[str]:
    """What these calls print on stdout, run at the same time on the recipe instead of the one they name."""
    started = []
    for line in lines:
        words = [str(file) if w.endswith(".yaml") else w for w in shlex.split(line)]
        command = [sys.executable, "-m", "torch.distributed.run", *words, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=ROOT))
    told = [p.communicate(timeout=300) for p in started]
    for p, (_, err) in zip(started, told, strict=True):
        assert p.returncode == 0, err[-3000:]
    return [out for out, _ in told]


def losses(result: dict[str, Any], stage: str) -> list[float]:
    return [m["loss"] for m in read_jsonl(Path(result["stages"][stage]["folder"]) / "logs/metrics.jsonl")]


def test_what_is_missing_is_named_with_the_command_that_makes_it(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no corpus was built yet; run `panda data build` first"):
        train_stages(recipe(file, f"runtime.store={tmp_path / 'store'}"))
    with pytest.raises(BadInput, match=r"The packs of stage 'pretrain' were not built yet .*; run `build it` first"):
        train_stages(recipe(file, "stages.pretrain.steps=3"), build="build it")
    with pytest.raises(BadInput, match=r"has no training stage 'instuct'. Did you mean 'instruct'"):
        train_stages(recipe(file), "instuct")
    with pytest.raises(BadInput, match=r"Stage 'pretrain', which 'instruct' builds on, is not trained yet"):
        train_stages(recipe(file), "instruct")


def test_ranks_under_torchrun_train_what_one_process_does(file: Path) -> None:
    """The command of docs/multi-node.md for one machine, on this recipe; a run then takes its stages from the store."""
    (line,) = re.findall(r"^torchrun (--standalone .*)$", PAGE, re.MULTILINE)
    (done,) = torchrun([line.replace("8", "2")], file, "--json")
    told = json.loads(done)
    assert list(told["stages"]) == ["pretrain", "instruct"]
    assert all(s["facts"]["processes"] == 2 and not s["reused"] for s in told["stages"].values())
    again = train_stages(recipe(file))
    assert all(s["reused"] for s in again["stages"].values())
    run = Run(recipe(file, "evaluate=null"))
    run.execute()
    assert {"train pretrain", "train instruct"} <= {r.name for r in run.records if r.reused}
    # Another key by a setting that hardly counts: now in one process.
    one = train_stages(recipe(file, "stages.pretrain.optimizer.eps=1.0001e-6"), "pretrain")
    assert losses(one, "pretrain") == pytest.approx(losses(told, "pretrain"), rel=1e-4)


def test_two_machines_train_together(file: Path) -> None:
    """The command of docs/multi-node.md for two machines, both of them this one."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    (line,) = re.findall(r"^torchrun (--nnodes 2 --node-rank 0 .*)$", PAGE, re.MULTILINE)
    line = line.replace("8", "1").replace("node0", "127.0.0.1").replace("29500", port)
    more = (
        "pretrain",
        "runtime.sharding=hybrid",
        "stages.pretrain.steps=12",
        "stages.pretrain.optimizer.lr=3e-3",
        "--json",
    )
    first, second = torchrun([line, line.replace("--node-rank 0", "--node-rank 1")], file, *more)
    assert second == ""
    told = json.loads(first)
    facts = told["stages"]["pretrain"]["facts"]
    assert facts["processes"] == 2
    assert facts["sharding"] == "hybrid"
    one = train_stages(recipe(file, "stages.pretrain.optimizer.lr=3.000001e-3"), "pretrain")
    assert losses(one, "pretrain") == pytest.approx(losses(told, "pretrain"), rel=1e-4)


def made_meanwhile(world: World) -> str:
    """Another process has committed the stage between the main rank's look and its lock."""
    made: Any = SimpleNamespace(key="made")
    store = SimpleNamespace(root=Path("store"), find=lambda key: None if world.main else made)
    run: Any = SimpleNamespace(store=store, stage=lambda *_, **__: made)
    job: Any = SimpleNamespace(settings={}, inputs={}, name="x")
    return str(_train_together(run, job, world).key)


def other_settings(world: World) -> str:
    try:
        _check_same(Store.key("train", 1, {"lr": world.rank}, {}), "x", world)
    except BadInput as e:
        return str(e)
    return ""


def test_ranks_neither_wait_for_what_is_made_nor_train_different_things() -> None:
    made, told = on_ranks(2, [(made_meanwhile, {}), (other_settings, {})])
    assert made == ["made", "made"]
    assert told[0] == told[1]
    assert "train x: the processes have different settings or files" in told[0]


def test_under_torchrun_the_same_is_checked_before_ranks_join(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(BadInput, match=r"stages\.pretrain\.batch_sequences: 2 rows a step are too few for 3 processes"):
        train_stages(recipe(file))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match=r"runtime\.tracking: 'tensorbord' is not known\. Did you mean 'tensorboard'"):
        train_stages(recipe(file, "runtime.tracking=[tensorbord]"))


def test_local_processes_train_a_stage(file: Path) -> None:
    shorter = recipe(file, "stages.pretrain.optimizer.lr=2e-3")
    several = shorter.model_copy(update={"runtime": shorter.runtime.model_copy(update={"processes": 2})})
    told = train_stages(several, "pretrain")["stages"]["pretrain"]
    assert told["facts"]["processes"] == 2
    assert train_stages(shorter, "pretrain")["stages"]["pretrain"] | {"reused": False} == told


def test_processes_that_cannot_be_are_refused_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    folders = (f"runtime.store={tmp_path / 'store'}", f"runtime.runs={tmp_path / 'runs'}")
    for override, sentence in {
        "runtime.gpus=3": r"runtime\.gpus: 3, but training is on the CPU here .*set runtime\.gpus=1",
        "runtime.processes=3": r"stages\.pretrain\.batch_sequences: 2 rows a step are too few for 3 processes",
    }.items():
        with pytest.raises(BadInput, match=sentence):
            Run(recipe(file, override, *folders)).execute()
    assert not list(tmp_path.iterdir())
    assert local_processes(RuntimeSpec()) == 1
    assert local_processes(RuntimeSpec(device="cpu", processes=5)) == 5

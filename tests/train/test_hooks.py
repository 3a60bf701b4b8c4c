"""Hooks: what they get, what is refused before the start, and that none of them stops a training."""

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.train.hooks import Hooks, Tracking, check_tracking, values_of

LINE: dict[str, Any] = {
    "step": 3,
    "steps": 9,
    "loss": 2.5,
    "lr": 0.1,
    "loss_by_source": {"wiki": 2.0, "news": 3.0},
    "loss_by_language": {"zh": 2.5},
}
HELD_OUT: dict[str, Any] = {
    "step": 4,
    "seconds": 1.5,
    "bits_per_byte": 1.2,
    "by_source": {"wiki": 1.1},
    "by_language": {"zh": 1.3},
    "best": True,
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module `my_hooks_here` in the working folder."""
    (tmp_path / "my_hooks_here.py").write_text(
        "seen = []\ndef log(stage, line):\n    seen.append((stage, line))\n"
        "def broken(stage, line):\n    raise ValueError('no room\\nleft')\ndef leaves(stage, line):\n    raise SystemExit(3)\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    check_tracking(("my_hooks_here:log",))
    yield sys.modules["my_hooks_here"]
    del sys.modules["my_hooks_here"]


def hooks(tmp_path: Path, *names: str, step: int = 0) -> tuple[Hooks, list[str]]:
    said: list[str] = []
    tracking = Tracking(names, "project", tmp_path / "out", {"lr": 0.1})
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return Hooks(tracking, "train base", work, step, said.append), said


def test_flat_numbers_of_both_kinds_of_lines() -> None:
    assert values_of(LINE) == {
        "steps": 9.0, "loss": 2.5, "lr": 0.1, "loss_by_source/wiki": 2.0, "loss_by_source/news": 3.0,
        "loss_by_language/zh": 2.5,
    }  # fmt: skip
    assert values_of(HELD_OUT) == {
        "held_out/seconds": 1.5, "held_out/bits_per_byte": 1.2, "held_out/by_source/wiki": 1.1,
        "held_out/by_language/zh": 1.3,
    }  # fmt: skip
    assert values_of({"step": 1, "loss": None}) == {}


def test_a_function_of_ones_own_gets_every_line(own: Any, tmp_path: Path) -> None:
    made, said = hooks(tmp_path, "my_hooks_here:log")
    made.log(LINE)
    made.log(HELD_OUT)
    made.close()
    assert own.seen == [("train base", LINE), ("train base", HELD_OUT)]
    assert not said


@pytest.mark.parametrize("name", ["broken", "leaves"])
def test_a_hook_that_raises_is_reported_once_and_left_out(own: Any, tmp_path: Path, name: str) -> None:
    made, said = hooks(tmp_path, f"my_hooks_here:{name}", "my_hooks_here:log")
    made.log(LINE)
    made.log(LINE)
    made.close()
    reason = "ValueError: no room" if name == "broken" else "SystemExit: 3"
    assert said == [f"train base: my_hooks_here:{name} gets no more numbers ({reason})."]
    assert len(own.seen) == 2


def test_a_hook_that_cannot_begin_does_not_stop_the_stage(own: Any, tmp_path: Path, fake: Any) -> None:
    module = fake("wandb")
    module.init = lambda **given: (_ for _ in ()).throw(RuntimeError("no network"))
    made, said = hooks(tmp_path, "wandb", "my_hooks_here:log")
    made.log(LINE)
    assert said == ["train base: wandb gets no more numbers (RuntimeError: no network)."]
    assert len(own.seen) == 1


def test_names_are_checked_before_anything_trains(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"'tensorbord' is not known\. Did you mean 'tensorboard'\?"):
        check_tracking(("tensorbord",))
    with pytest.raises(BadInput, match="no_such_module_here:log cannot be imported"):
        check_tracking(("no_such_module_here:log",))
    with pytest.raises(BadInput, match="my_hooks_here:absent cannot be imported"):
        check_tracking(("my_hooks_here:absent",))
    with pytest.raises(BadInput, match="my_hooks_here:number is no function"):
        check_tracking(("my_hooks_here:number",))
    monkeypatch.setattr("pandallm.train.hooks.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "mlflow", "trackio"):
        with pytest.raises(BadInput, match=rf"{name} is not installed: `pip install {name}`"):
            check_tracking((name,))


def test_packages_are_not_imported_unless_named() -> None:
    import subprocess

    code = "import sys, pandallm.train.hooks; sys.exit(any(m in sys.modules for m in ('torch', 'wandb', 'mlflow', 'trackio', 'tensorboard')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Put an empty module of this name in place of the package."""

    def put(name: str) -> Any:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


class Run:
    """What wandb.init and trackio.init return."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, Mapping[str, float]]] = []
        self.finished = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        print("libraries print")
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_wandb_goes_on_with_the_same_run_after_a_stop(
    tmp_path: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module, runs, given = fake("wandb"), [Run(), Run()], list[dict[str, Any]]()
    module.init = lambda **arguments: given.append(arguments) or runs[len(given) - 1]
    for _ in range(2):
        made, said = hooks(tmp_path, "wandb")
        made.log(LINE)
        made.close()
        made.close()
    assert given[0]["id"] == given[1]["id"]
    assert given[0]["resume"] == "allow"
    assert given[0]["project"] == "project"
    assert given[0]["name"] == "train base"
    assert given[0]["config"] == {"lr": 0.1}
    assert runs[0].lines == [(3, values_of(LINE))]
    assert runs[0].finished == runs[1].finished == 1
    assert not said
    assert capsys.readouterr().out == ""


def test_trackio(tmp_path: Path, fake: Any) -> None:
    module, run, given = fake("trackio"), Run(), dict[str, Any]()
    module.init = lambda **arguments: given.update(arguments) or run
    made, said = hooks(tmp_path, "trackio")
    made.log(HELD_OUT)
    made.close()
    assert given["project"] == "project"
    assert given["name"] == "train-base-work"
    assert given["resume"] == "allow"
    assert run.lines == [(4, values_of(HELD_OUT))]
    assert run.finished == 1
    assert not said


def test_tensorboard_writes_a_file_that_it_reads_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made, said = hooks(tmp_path, "tensorboard")
    made.log(LINE)
    made.close()
    made, _ = hooks(tmp_path, "tensorboard", step=2)  # step 3 is made again
    made.log({**LINE, "loss": 2.25})
    made.close()
    read = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "train-base")).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(3, 2.25)]
    assert read.Scalars("loss_by_source/wiki")[0].value == 2.0
    assert not said


def test_mlflow_keeps_a_run_in_its_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for _ in range(2):
        made, said = hooks(tmp_path, "mlflow")
        made.log(LINE)
        made.close()
        assert not said
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("project").experiment_id])
    assert len(runs) == 1
    assert runs[0].data.metrics["loss_by_source/wiki"] == 2.0

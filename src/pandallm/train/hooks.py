"""Where a stage's numbers also go while it runs: TensorBoard, Weights & Biases, MLflow, trackio, or a function of one's own.

Packages are imported only when named. Nothing a hook does stops a training: one that raises is reported once and left out.
"""

import contextlib
import importlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pandallm.errors import BadInput
from pandallm.spec import nearest
from pandallm.store import read_json, write_json

#: Name under `runtime.tracking` -> the module it needs, and what pip calls it.
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "trackio": ("trackio", "trackio"),
}


@dataclass(frozen=True)
class Tracking:
    """What a stage's hooks are told. names: as under `runtime.tracking`; folder: where hooks that write files write them."""

    names: tuple[str, ...]
    project: str
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)


class Hook(Protocol):
    """Gets every line of metrics.jsonl and held_out.jsonl as a dict with "step"."""

    def log(self, line: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def check_tracking(names: tuple[str, ...]) -> None:
    """Raise BadInput, before anything trains, for an unknown name, a missing package, or a function that cannot be had."""
    for name in names:
        if ":" in name:
            _own_function(name)
        elif name not in PACKAGES:
            raise BadInput(
                f"runtime.tracking: '{name}' is not known.{nearest(name, [*PACKAGES])} One's own is named module:function."
            )
        elif find_spec(PACKAGES[name][0]) is None:
            raise BadInput(f"runtime.tracking: {name} is not installed: `pip install {PACKAGES[name][1]}`.")


def values_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by flat names: `loss`, `loss_by_source/wiki`, `held_out/by_language/zh`. Nulls are left out.

    No name is the folder of another: MLflow keeps metrics as files.
    """
    flat: dict[str, float] = {}
    kind = "held_out/" if "bits_per_byte" in line else ""
    for key, value in line.items():
        if key == "step" or isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            flat |= {f"{kind}{key}/{k}": float(v) for k, v in value.items() if v is not None}
        elif isinstance(value, int | float):
            flat[kind + key] = float(value)
    return flat


class Hooks:
    """The hooks of one stage. `say` gets the one sentence about a hook that failed."""

    def __init__(
        self, tracking: Tracking | None, stage: str, work: Path, step: int, say: Callable[[str], None]
    ) -> None:
        self._say, self._stage = say, stage
        self._hooks: dict[str, Hook] = {}
        for name in tracking.names if tracking else ():
            with self._guarded(name):
                assert tracking is not None
                self._hooks[name] = _open(name, tracking, stage, work, step)

    def log(self, line: Mapping[str, Any]) -> None:
        """Hand a line to every hook that still works."""
        for name, hook in list(self._hooks.items()):
            with self._guarded(name):
                hook.log(line)

    def close(self) -> None:
        """Let every hook finish; once."""
        for name, hook in list(self._hooks.items()):
            with self._guarded(name):
                hook.close()
        self._hooks.clear()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Libraries print: stdout is for results."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except (Exception, SystemExit) as e:
            from pandallm.model.folder import first_line

            self._hooks.pop(name, None)
            self._say(f"{self._stage}: {name} gets no more numbers ({type(e).__name__}: {first_line(e)}).")


def _own_function(name: str) -> Callable[[str, Mapping[str, Any]], None]:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # a console script does not look in the working folder
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as e:
        raise BadInput(
            f"runtime.tracking: {name} cannot be imported ({type(e).__name__}: {e}); name it module:function, the module "
            "in the working folder or installed."
        ) from None
    if not callable(found):
        raise BadInput(f"runtime.tracking: {name} is no function.")
    function: Callable[[str, Mapping[str, Any]], None] = found
    return function


def _open(name: str, tracking: Tracking, stage: str, work: Path, step: int) -> Hook:
    if ":" in name:
        return _Own(_own_function(name), stage)
    makers: dict[str, Callable[[Tracking, str, Path, int], Hook]] = {
        "tensorboard": _TensorBoard,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
        "trackio": _Trackio,
    }
    return makers[name](tracking, stage, work, step)


class _Own:
    def __init__(self, function: Callable[[str, Mapping[str, Any]], None], stage: str) -> None:
        self._function, self._stage = function, stage

    def log(self, line: Mapping[str, Any]) -> None:
        self._function(self._stage, line)

    def close(self) -> None:
        pass


class _TensorBoard:
    def __init__(self, tracking: Tracking, stage: str, work: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = tracking.folder / "tensorboard" / stage.replace(" ", "-")
        # Steps after a checkpoint are made again: what a killed run logged of them is dropped.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def log(self, line: Mapping[str, Any]) -> None:
        for key, value in values_of(line).items():
            self._writer.add_scalar(key, value, line["step"])

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, tracking: Tracking, stage: str, work: Path, step: int) -> None:
        wandb: Any = importlib.import_module("wandb")

        tracking.folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=tracking.project,
            name=stage,
            id=_run_id(work, "wandb", lambda: secrets.token_hex(8)),
            resume="allow",
            dir=str(tracking.folder),
            config=dict(tracking.settings),
            reinit="create_new",
            settings={"console": "off"},  # it would take over the terminal
        )

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(values_of(line), step=line["step"])

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, tracking: Tracking, stage: str, work: Path, step: int) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._client: Any = mlflow.MlflowClient()

        def new_run() -> str:
            experiment = self._client.get_experiment_by_name(tracking.project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(tracking.project)
            return str(self._client.create_run(number, run_name=stage).info.run_id)

        self._id = _run_id(work, "mlflow", new_run)

    def log(self, line: Mapping[str, Any]) -> None:
        metric: Any = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        metrics = [metric(key, value, now, line["step"]) for key, value in values_of(line).items()]
        self._client.log_batch(self._id, metrics, synchronous=False)

    def close(self) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        mlflow.flush_async_logging()
        self._client.set_terminated(self._id)


class _Trackio:
    def __init__(self, tracking: Tracking, stage: str, work: Path, step: int) -> None:
        trackio: Any = importlib.import_module("trackio")

        name = _run_id(work, "trackio", lambda: f"{stage.replace(' ', '-')}-{work.name[:8]}")
        self._run: Any = trackio.init(
            project=tracking.project, name=name, config=dict(tracking.settings), resume="allow", embed=False
        )

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(values_of(line), step=line["step"])

    def close(self) -> None:
        self._run.finish()


def _run_id(work: Path, kind: str, make: Callable[[], str]) -> str:
    """The service's own name of this training, the same when a stopped one goes on. Hidden, so no part of the result."""
    path = work / f".tracking-{kind}.json"
    if not path.is_file():
        write_json(path, {"id": make()})
    return str(read_json(path)["id"])

"""One training stage of a run: its key, its arguments, and on how many processes of this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import BadInput
from pandallm.pipeline.corpora import train_settings
from pandallm.progress import Progress
from pandallm.recipe.spec import RuntimeSpec
from pandallm.store import Artifact, Work
from pandallm.train.spec import TrainSpec

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run


@dataclass(frozen=True)
class TrainingJob:
    """What a training stage is made of: `settings` and `inputs` give its key; the rest is handed to the loop."""

    name: str
    spec: TrainSpec
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    packs: Path
    start: Path
    held_out: Path | None
    variant: Mapping[str, Any]

    def arguments(self, run: "Run", work: Path) -> dict[str, Any]:
        """Those of `train_stage`, but `world` and `progress`."""
        from pandallm.train.hooks import Tracking

        runtime = run.recipe.runtime
        return {
            "start": self.start,
            "packs": self.packs,
            "spec": self.spec,
            "work": work,
            "seed": run.recipe.seed,
            "device": runtime.device,
            "threads": runtime.threads,
            "sharding": runtime.sharding,
            "variant": self.variant,
            "save_every_seconds": runtime.save_every_seconds,
            "keep_checkpoints": runtime.keep_checkpoints,
            "deadline": run.deadline,
            "deterministic": runtime.deterministic,
            "held_out": self.held_out,
            "tracking": Tracking(runtime.tracking, run.recipe.name, run.folder / "tracking", self.settings),
            "name": f"train {self.name}",
        }


def training_job(
    run: "Run", name: str, spec: TrainSpec, packs: Artifact, start: tuple[Path, str], watched: Artifact | None
) -> TrainingJob:
    """The training of one stage from the model `start` (folder, digest). `watched`: its held-out windows."""
    from pandallm.train.variants import key_part, resolve_variant
    from pandallm.train.world import world_size

    runtime = run.recipe.runtime
    variant = resolve_variant(
        start[0],
        spec,
        runtime.device,
        remembered=run.store.root / "variants.json",
        processes=ranks if (ranks := world_size()) > 1 else local_processes(runtime),
        progress=run.progress,
        name=f"train {name}",
    )
    inputs = {"packs": packs.digest, "start": start[1]}
    if watched:
        inputs["held_out"] = watched.digest
    settings = train_settings(run.recipe, spec) | key_part(variant, spec)
    if spec.watch is None:
        settings.pop("watch", None)
    return TrainingJob(name, spec, settings, inputs, packs.path, start[0], watched.path if watched else None, variant)


def train(run: "Run", job: TrainingJob, cost: float = 0.0) -> Artifact:
    """The trained stage, from the store or made now: here, or on the processes that the recipe's runtime names."""
    processes = local_processes(run.recipe.runtime)

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.pipeline.plan.actual import predict_stage

        # Before the first step, so that it can be compared with what came.
        predicted = {"predicted": predict_stage(run, job.spec, job.packs, job.start, processes, job.held_out)}
        arguments = job.arguments(run, work.folder)
        if processes > 1:
            from pandallm.train.launch import launch_stage

            return {**launch_stage(processes, **arguments, progress=progress), **predicted}
        from pandallm.train.loop import train_stage

        return {**train_stage(**arguments, progress=progress), **predicted}

    return run.stage(f"train {job.name}", "train", job.settings, job.inputs, make, cost=cost, resumes=True)


def local_processes(runtime: RuntimeSpec) -> int:
    """Training processes on this machine: `runtime.gpus` on GPUs, `runtime.processes` on a CPU.

    Raises BadInput where the machine has not what is asked for.
    """
    if (runtime.gpus or 1) == (runtime.processes or 1) == 1:
        return 1
    import torch

    from pandallm.model.folder import resolve_device

    if resolve_device(runtime.device) == "cpu":
        if (runtime.gpus or 1) > 1:
            raise BadInput(
                f"runtime.gpus: {runtime.gpus}, but training is on the CPU here (torch {torch.__version__} sees "
                f"{torch.cuda.device_count()} GPUs): set runtime.gpus=1, or runtime.processes to try several on a CPU."
            )
        return runtime.processes or 1
    if runtime.processes:
        raise BadInput("runtime.processes is for a CPU; on GPUs set runtime.gpus, one process is started for each.")
    gpus = runtime.gpus or 1
    if gpus > torch.cuda.device_count():  # not run on a GPU yet
        raise BadInput(
            f"runtime.gpus: {gpus}, but this machine has {torch.cuda.device_count()}; on several machines start "
            "`panda train` under torchrun on each of them."
        )
    return gpus


def check_processes(runtime: RuntimeSpec, plans: Mapping[str, TrainSpec]) -> None:
    """Raise BadInput where the stages cannot be trained on the processes that are asked for, before anything is built."""
    from pandallm.train.layout import check_sharding
    from pandallm.train.world import world_size

    processes = ranks if (ranks := world_size()) > 1 else local_processes(runtime)
    for name, spec in plans.items():
        if spec.batch_sequences < processes:
            raise BadInput(
                f"stages.{name}.batch_sequences: {spec.batch_sequences} rows a step are too few for {processes} processes: "
                f"train on at most {spec.batch_sequences}."
            )
        if processes > 1 and runtime.sharding != "auto":
            check_sharding(spec, runtime.sharding)

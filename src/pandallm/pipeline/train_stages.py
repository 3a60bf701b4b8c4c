"""`panda train`: the training stages of a recipe whose data is ready, alone or as one rank of many under torchrun."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.corpora import pack
from pandallm.pipeline.data import StoredRun, data_recipe
from pandallm.pipeline.held_out import held_out
from pandallm.pipeline.run import VERSIONS
from pandallm.pipeline.training import TrainingJob, train, training_job
from pandallm.progress import SILENT, Progress
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest
from pandallm.store import Artifact, Store, Work
from pandallm.train.world import World, is_lost, join_world, world_size

#: Another machine sees a committed folder on a shared file system after a while.
SHARED_SECONDS = 60.0
#: What the main rank tells the others: begin to train, or take what has been made meanwhile.
_TRAIN, _MADE = 1, 2


@dataclass
class TrainingRun(StoredRun):
    """Looks data up and makes none; training stages are made."""

    def makes(self, kind: str) -> bool:
        return kind == "train"


def train_stages(
    recipe: Recipe, stage: str | None = None, *, progress: Progress = SILENT, build: str = "panda data build"
) -> dict[str, Any]:
    """Train all stages of a recipe, or one, from the packs and the models in the store.

    Under torchrun every rank calls it; data is looked up before the ranks join, so that nothing slow happens between
    them. The store must then lie on a file system that all machines share.

    Returns {"name", "seed", "stages": {name: {"folder", "key", "reused", "facts"}}}. Raises BadInput, saying which command
    makes it, where packs or the model to start from are not in the store.
    """
    run = TrainingRun(data_recipe(recipe), progress, build=build)
    plans = run.plans()
    if not plans:
        raise BadInput(f"Recipe '{recipe.name}' trains nothing; add a stage under 'stages'.")
    if stage is not None and stage not in plans:
        raise BadInput(f"Recipe '{recipe.name}' has no training stage '{stage}'.{nearest(stage, sorted(plans))}")
    run.check_training()
    wanted = [stage] if stage else list(plans)
    data = {name: _data(run, name) for name in _with_origins(plans, wanted)}
    with ExitStack() as stack:
        world = stack.enter_context(join_world(recipe.runtime.device)) if world_size() > 1 else None
        made: dict[str, Artifact] = {}
        reused: dict[str, bool] = {}
        for name in data:
            origin = plans[name][2]
            start = (made[origin].path / "model", made[origin].digest) if origin in made else run.start()
            job = training_job(run, name, plans[name][0], data[name][0], start, data[name][1])
            found = run.store.find(Store.key("train", VERSIONS["train"], job.settings, job.inputs))
            if name not in wanted and found is None:
                raise BadInput(
                    f"Stage '{name}', which '{wanted[0]}' builds on, is not trained yet; run `panda train` for it first."
                )
            if name not in wanted:
                assert found
                made[name] = found
                continue
            reused[name] = found is not None
            try:
                made[name] = train(run, job) if world is None else _train_together(run, job, world)
            except RuntimeError as e:
                if not is_lost(e):
                    raise
                raise PandaError(
                    f"train {name}: another process ended; its own message says why. Start all of them again to go on "
                    "from the last checkpoint."
                ) from None
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "stages": {
            n: {
                "folder": str(made[n].path),
                "key": made[n].key,
                "reused": reused[n],
                "facts": made[n].manifest["facts"],
            }
            for n in wanted
        },
    }


def _data(run: TrainingRun, name: str) -> tuple[Artifact, Artifact | None]:
    """Packs and held-out windows of a stage, from the store."""
    spec, corpus, _ = run.plans()[name]
    return pack(run, name, spec, corpus), held_out(run, name, spec, corpus)


def _with_origins(plans: Mapping[str, Any], wanted: list[str]) -> list[str]:
    """The wanted stages and those that they start from, each after its own origin."""
    order: list[str] = []

    def add(name: str) -> None:
        origin = plans[name][2]
        if origin in plans:
            add(origin)
        if name not in order:
            order.append(name)

    for name in wanted:
        add(name)
    return order


def _train_together(run: TrainingRun, job: TrainingJob, world: World) -> Artifact:
    """As one rank of `world`. Rank 0 holds the stage's lock, and commits."""
    from pandallm.train.loop import train_stage

    key = Store.key("train", VERSIONS["train"], job.settings, job.inputs)
    _check_same(key, job.name, world)
    begun = False

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        nonlocal begun
        begun = True
        world.largest(_TRAIN)  # the folder is there, and nobody else's
        return train_stage(**job.arguments(run, work.folder), world=world, progress=progress)

    if world.largest(int(world.main and run.store.find(key) is not None)):
        return _committed(run.store, key)
    if world.main:
        artifact = run.stage(f"train {job.name}", "train", job.settings, job.inputs, make, resumes=True)
        world.largest(0 if begun else _MADE)
        return artifact
    if world.largest(0) == _MADE:  # by somebody else, between our look and our lock
        return _committed(run.store, key)
    train_stage(**job.arguments(run, run.store.root / "work" / key), world=world)
    world.barrier()
    return _committed(run.store, key)


def _check_same(key: str, name: str, world: World) -> None:
    """Raise BadInput on every rank where they would not train the same: they would wait for each other's checkpoints."""
    number = int(key[:12], 16)
    if world.largest(number) != -world.largest(-number):
        raise BadInput(
            f"train {name}: the processes have different settings or files for this stage: start all of them with the same recipe, "
            "overrides and version of pandallm, on processors of one kind."
        )


def _committed(store: Store, key: str) -> Artifact:
    until = time.monotonic() + SHARED_SECONDS
    while (artifact := store.find(key)) is None:
        if time.monotonic() > until:
            raise PandaError(
                f"{store.root / 'artifacts' / key} cannot be seen here: runtime.store must lie on a file system that all "
                "machines share."
            )
        time.sleep(0.2)
    return artifact


def model_folder(result: Mapping[str, Any], stage: str) -> Path:
    """Where a trained stage's model lies."""
    return Path(result["stages"][stage]["folder"]) / "model"

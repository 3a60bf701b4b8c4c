"""Recipe -> stages -> run folder. Each stage is looked up in the store by its key and made only where it is missing.

Data is made ready for all stages before the first of them trains; then stages train in order, models are evaluated, the delta is made,
applied back and verified, and the run folder is written.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput, Interrupted
from pandallm.pipeline.bases import extend_base, import_base, initialise_base
from pandallm.pipeline.corpora import clean, close_engine, pack, source_files
from pandallm.pipeline.held_out import held_out
from pandallm.pipeline.machine import machine, peak_memory_gib, versions
from pandallm.pipeline.overall import Overall
from pandallm.progress import SILENT, Progress
from pandallm.recipe.load import expand
from pandallm.recipe.spec import Recipe
from pandallm.store import (
    Artifact,
    Store,
    Work,
    canonical_json,
    exclusive,
    read_json,
    write_json,
    write_text,
)
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question
from pandallm.train.spec import TrainSpec

#: Version of each kind of stage: raised when the same settings and inputs give other bytes than before.
VERSIONS = {
    "world": 1,
    "clean": 3,
    "tokenizer": 1,
    "init": 1,
    "import": 1,
    "extend": 2,
    "pack": 2,
    "held_out": 1,
    "train": 3,
    "evaluate": 2,
    "delta": 2,
}


@dataclass
class StageRecord:
    """One line of the run's manifest."""

    name: str
    kind: str
    artifact: Artifact
    reused: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "key": self.artifact.key,
            "digest": self.artifact.digest,
            "reused": self.reused,
            "seconds": round(self.seconds, 2),
            "made_in_seconds": self.artifact.manifest["seconds"],
            "facts": self.artifact.manifest["facts"],
        }


@dataclass
class Run:
    """One run of one recipe. `execute()` does everything; the parts are methods so that verbs can ask for less."""

    recipe: Recipe
    progress: Progress = SILENT
    command: str = ""
    records: list[StageRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        runtime = self.recipe.runtime
        self.store = Store(Path(runtime.store).expanduser().absolute())
        self.folder = Path(runtime.runs).expanduser().absolute() / f"{self.recipe.name}-seed{self.recipe.seed}"
        self.overall = Overall(self.progress)
        self.started = time.time()
        self.deadline = time.monotonic() + 60 * runtime.stop_after_minutes if runtime.stop_after_minutes else None
        self.workers = runtime.workers or os.cpu_count() or 1

    # One stage ------------------------------------------------------------------------------------------------------------------

    def stage(
        self,
        name: str,
        kind: str,
        settings: Any,
        inputs: Mapping[str, str],
        make: Callable[[Work, Progress], Mapping[str, Any] | None],
        *,
        cost: float = 0.0,
        resumes: bool = False,
    ) -> Artifact:
        """The artifact of this stage, from the store or made now. `resumes`: `make` goes on from what a killed attempt left."""
        key = Store.key(kind, VERSIONS[kind], settings, inputs)
        if not self.makes(kind):
            return self.looked_up(name, kind, self.store.find(key))
        began = time.time()
        with self.overall.part(cost) as part:
            artifact = self.store.find(key)
            reused = artifact is not None
            if artifact is None:
                with self.store.begin(kind, VERSIONS[kind], settings, inputs) as work:
                    artifact = self.store.find(key)  # another process may have committed while we waited
                    if artifact is None:
                        if not resumes:
                            work.clear()
                        artifact = work.commit({**(make(work, part) or {}), "peak_memory_gib": peak_memory_gib()})
            seconds = time.time() - began
            self.records.append(StageRecord(name, kind, artifact, reused, seconds))
            self.progress.say(f"{name}: {'reused from the store' if reused else f'done in {seconds:.1f} s'}")
            if not reused:  # each write waits for the disk, and a run of a study may reuse twenty stages in a row
                self._write_manifest("running")
        return artifact

    def makes(self, kind: str) -> bool:
        """Whether stages of this kind are made where the store lacks them; else `looked_up` says what becomes of them."""
        return True

    def looked_up(self, name: str, kind: str, artifact: Artifact | None) -> Artifact:
        """What a stage that is not made here gives: the store's artifact, or an error that says that there is none."""
        if artifact is None:
            raise BadInput(f"{name} is not in the store {self.store.root}.")
        return artifact

    # Data -----------------------------------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What ${name} stands for in `files`."""
        values = dict(self.recipe.paths)
        if self.recipe.world:
            values["world"] = str(self.world().path)
        return values

    def world(self) -> Artifact:
        """The synthetic world of the recipe (made once)."""
        if not hasattr(self, "_world"):
            assert self.recipe.world is not None
            spec = self.recipe.world

            def make(work: Work, progress: Progress) -> Mapping[str, Any]:
                from pandallm.microworld.make import make_world

                return make_world(spec, self.recipe.seed, work.folder, progress=progress)

            settings = {"world": spec.model_dump(mode="json"), "seed": self.recipe.seed}
            self._world = self.stage("world", "world", settings, {}, make)
        return self._world

    def tasks(self) -> dict[str, tuple[TaskSpec, list[Question]]]:
        """Evaluated tasks and their questions (all of them; limits are the evaluation's), read once."""
        if not hasattr(self, "_tasks"):
            names = list(self.recipe.evaluate.tasks) if self.recipe.evaluate else []
            for corpus in self.recipe.corpora.values():
                names += [t for t in (corpus.decontaminate.against if corpus.decontaminate else ()) if t not in names]
            self._tasks = {name: self._read_task(name) for name in names}
        return self._tasks

    def _read_task(self, name: str) -> tuple[TaskSpec, list[Question]]:
        from pandallm.tasks.load import load_task
        from pandallm.tasks.locate import cache_folder, find, locate, with_split_of
        from pandallm.tasks.read import read_task

        where = f"tasks.{name}"
        given = self.recipe.tasks.get(name, "")
        location = expand(given, self.variables(), where) if given else ""
        task = load_task(location if location.endswith((".yaml", ".yml")) else name)
        pattern = location if location and not location.endswith((".yaml", ".yml")) else task.files
        base = Path(location).parent if location.endswith((".yaml", ".yml")) else Path.cwd()
        if pattern:
            files = locate(task, base / expand(pattern, self.variables(), where))
        elif not (files := find(task, [cache_folder() / task.name])):
            raise BadInput(f"Task '{name}' has no files here; add them to the recipe, for example tasks.{name}=FILE.")
        read = read_task(task, files)
        if told := read.told():
            self.progress.say(f"{name}: {told}.")
        return with_split_of(task, files), read.questions

    def corpus(self, name: str) -> Artifact:
        """The cleaned corpus of this name (made once)."""
        made: dict[str, Artifact] = self.__dict__.setdefault("_corpora", {})
        if name not in made:
            made[name] = clean(self, name)
        return made[name]

    # Models ---------------------------------------------------------------------------------------------------------------------

    def start(self) -> tuple[Path, str]:
        """Folder and digest of the model that exists before any training here: imported (and extended), or initialised from scratch."""
        if not hasattr(self, "_start"):
            base = self.recipe.base
            artifact = initialise_base(self) if base.scratch else import_base(self)
            self._original = (artifact.path / "model", artifact.digest)
            if base.extend:
                artifact = extend_base(self, artifact)
            self._start = (artifact.path / "model", artifact.digest)
        return self._start

    def original(self) -> tuple[Path, str]:
        """Folder and digest of the base as it came: before its vocabulary was extended."""
        self.start()
        return self._original

    def plans(self) -> dict[str, tuple[TrainSpec, str, str | None]]:
        """Training stages in order: name -> (settings, corpus, the stage it starts from; None for the first pretraining of a base)."""
        from pandallm.model.folder import resolve_dtype

        plans: dict[str, tuple[TrainSpec, str, str | None]] = {}
        if scratch := self.recipe.base.scratch:
            plans["base"] = (scratch.train, scratch.train.corpus, None)
        for name, stage in self.recipe.stages.items():
            plans[name] = (stage, stage.corpus, stage.from_)
        device = self.recipe.runtime.device
        return {
            name: (spec.model_copy(update={"dtype": resolve_dtype(spec.dtype, device)}), corpus, origin)
            for name, (spec, corpus, origin) in plans.items()
        }

    def train(
        self,
        name: str,
        spec: TrainSpec,
        packs: Artifact,
        start: tuple[Path, str],
        cost: float,
        watched: Artifact | None = None,
    ) -> tuple[Path, str]:
        """Train one stage from the model `start` (folder, digest). `watched`: its held-out windows."""
        from pandallm.pipeline.training import train, training_job

        artifact = train(self, training_job(self, name, spec, packs, start, watched), cost)
        return artifact.path / "model", artifact.digest

    # The whole ------------------------------------------------------------------------------------------------------------------

    def execute(self) -> dict[str, Any]:
        """Do everything the recipe says and write the run folder. Returns the content of scores.json (empty without evaluation)."""
        self.check_training()
        self.check_inputs()
        with exclusive(self.folder / ".lock", f"Another `panda run` is writing {self.folder}; wait for it or stop it."):
            self._write_manifest("running")
            try:
                scores = self._execute()
            except BaseException as e:
                self._write_manifest("interrupted" if isinstance(e, Interrupted | KeyboardInterrupt) else "failed")
                raise
            finally:
                close_engine(self)
            self._write_manifest("complete")
            self._write_card(scores)
        return scores

    def _execute(self) -> dict[str, Any]:
        from pandallm.pipeline.chat_forms import check_chat_templates, mismatches
        from pandallm.pipeline.evaluation import evaluate_all
        from pandallm.pipeline.release import release
        from pandallm.pipeline.run_folder import write_run_folder

        plans = self.plans()
        base = None if self.recipe.base.scratch else self.start()[0]
        check_chat_templates(self.recipe, plans, base)
        for _, corpus, _ in plans.values():
            self.corpus(corpus)
        for corpus in self.recipe.evaluate.bits_per_byte if self.recipe.evaluate else ():
            self.corpus(corpus)
        packs = {name: pack(self, name, spec, corpus) for name, (spec, corpus, _) in plans.items()}
        dialogues = {n for n, a in packs.items() if a.manifest["facts"]["ledger"]["total"]["masked"]}
        for warning in mismatches(self.recipe, plans, base, dialogues):
            self.progress.say(f"Warning: {warning}")
        watched = {name: held_out(self, name, spec, corpus) for name, (spec, corpus, _) in plans.items()}
        close_engine(self)
        self._lint(plans, packs)
        training = {name: 3.0 * a.manifest["facts"]["ledger"]["total"]["exposures"] for name, a in packs.items()}
        scoring = self._scoring_cost()
        models: dict[str, tuple[Path, str]] = {} if self.recipe.base.scratch else {"base": self.start()}
        if self.recipe.base.extend:
            models["original"] = self.original()
        with self.overall.whole(sum(training.values()) + scoring * len(self._evaluated_models())):
            for name, (spec, _, origin) in plans.items():
                start = models[origin] if origin else self.start()
                models[name] = self.train(name, spec, packs[name], start, training[name], watched[name])
            evaluations = evaluate_all(self, models, scoring)
        delta = release(self, models)
        return write_run_folder(self, packs, models, evaluations, delta)

    def _lint(self, plans: Mapping[str, tuple[TrainSpec, str, str | None]], packs: Mapping[str, Artifact]) -> None:
        """Say what looks wrong in the stages' settings, before the first of them trains."""
        from pandallm.train.lint import lint_stage

        for name, (spec, _, _) in plans.items():
            for finding in lint_stage(spec, packs[name].manifest["facts"]):
                self.progress.say(f"train {name}: {finding.text}")

    def _write_card(self, scores: dict[str, Any]) -> None:
        """`model_card.md`: what a reader of the weights must know, from the stored results."""
        from pandallm.release.bundle import card_sources
        from pandallm.release.cards import model_card

        if scores:
            recipe = self.recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
            card = model_card(read_json(self.folder / "manifest.json"), scores, recipe, card_sources(self.folder, {}))
            write_text(self.folder / "model_card.md", card)

    def check_training(self) -> None:
        """What the recipe asks of training can be done here; data can be built where it cannot."""
        from pandallm.pipeline.training import check_processes
        from pandallm.train.hooks import check_tracking
        from pandallm.train.method import check_method
        from pandallm.train.variants import check_variant

        plans = {name: plan for name, (plan, _, _) in self.plans().items()}
        check_processes(self.recipe.runtime, plans)
        for plan in plans.values():
            check_method(plan)
            check_variant(plan, self.recipe.runtime.device)
        check_tracking(self.recipe.runtime.tracking)

    def check_inputs(self) -> None:
        """Every file that the recipe names is there and every benchmark can be read, before anything is written.

        What the synthetic world will make is left out.
        """
        from pandallm.model.folder import check_model_folder
        from pandallm.model.gguf import find_gguf

        base = self.recipe.base
        if base.gguf:
            find_gguf(base.gguf)
        if base.model and Path(base.model).exists():
            check_model_folder(Path(base.model))
        for name, corpus in self.recipe.corpora.items():
            for source, spec in corpus.sources.items():
                if "${world}" not in canonical_json(spec.files):
                    source_files(self.recipe, name, source, self.recipe.paths)
        if self.recipe.evaluate and not self.recipe.world:
            self.tasks()

    def _evaluated_models(self) -> Sequence[str]:
        return self.recipe.evaluate.models if self.recipe.evaluate else ()

    def _scoring_cost(self) -> float:
        """Rough forward tokens of one model's evaluation: characters of what is asked, a token each."""
        e = self.recipe.evaluate
        if not e:
            return 0.0
        cost = 0.0
        for name in e.tasks:
            task, questions = self.tasks()[name]
            mean = sum(len(q.context) + len(q.question) + sum(map(len, q.options)) for q in questions) / max(
                len(questions), 1
            )
            prompts = len(task.prompts) if e.prompts == "all" else len(e.prompts)
            for method in e.methods:
                limit = getattr(e.limit, method)
                n = min(len(questions), limit) if limit else len(questions)
                cost += n * prompts * (mean + 20) * (1 if method == "likelihood" else 2)
        return cost

    def _write_manifest(self, state: str) -> None:
        write_json(
            self.folder / "manifest.json",
            {
                "name": self.recipe.name,
                "seed": self.recipe.seed,
                "state": state,
                "pandallm": __version__,
                "versions": versions(),
                "machine": machine(),
                "peak_memory_gib": max(
                    [m for r in self.records if (m := r.artifact.manifest["facts"].get("peak_memory_gib"))],
                    default=None,
                ),
                "command": self.command,
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
                "seconds": round(time.time() - self.started, 1),
                # What the results cost, also where a stage came from the store.
                "work_seconds": round(sum(r.artifact.manifest["seconds"] for r in self.records), 1),
                "stages": [r.to_json() for r in self.records],
            },
        )


def link_folder(target: Path, link: Path) -> None:
    """A relative symbolic link, or a copy where the system has none."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    try:
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    except OSError:
        shutil.copytree(target, link)

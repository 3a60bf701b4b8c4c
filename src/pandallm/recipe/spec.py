"""Recipe: the one file that says everything."""

from typing import Literal

from pydantic import Field, model_validator

from pandallm.data.spec import CorpusSpec, ExtendSpec, VocabularySpec
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.microworld.spec import WorldSpec
from pandallm.model.spec import ArchitectureSpec, GgufSpec, ShapeSpec
from pandallm.release.spec import ReleaseSpec
from pandallm.spec import Spec
from pandallm.train.spec import TrainSpec


class ScratchTraining(TrainSpec):
    """First pretraining of a base from scratch."""

    corpus: str


class ScratchSpec(Spec):
    """A base made here: a tokenizer, an architecture, a first pretraining."""

    architecture: ArchitectureSpec
    tokenizer: VocabularySpec
    train: ScratchTraining


class BaseSpec(Spec):
    """Where the base model comes from: exactly one of `model` (folder or hub id), `gguf`, `scratch`.

    `extend` gives a `model` or `gguf` new pieces; the result is the base of all stages. The model as it came is then `original`.
    """

    model: str | None = None
    revision: str | None = None
    gguf: GgufSpec | None = None
    scratch: ScratchSpec | None = None
    extend: ExtendSpec | None = None
    shape: ShapeSpec | None = None  # for `panda plan`, where the model's config cannot be read

    @model_validator(mode="after")
    def _one_origin(self) -> "BaseSpec":
        given = [n for n in ("model", "gguf", "scratch") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of model, gguf, scratch (given: {', '.join(given) or 'none'})")
        if self.extend and self.scratch:
            raise ValueError("extend is for a model that exists already; set scratch.tokenizer.size instead")
        return self


class StageSpec(TrainSpec):
    """A training stage: starts `from` the base or another stage, reads one corpus."""

    from_: str = Field("base", alias="from")
    corpus: str


class RuntimeSpec(Spec):
    """What does not change the result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, gt=0)  # physical cores when left out
    workers: int | None = Field(None, gt=0)  # of data stages and of evaluation; physical cores when left out
    gpus: int | None = Field(
        None, gt=0
    )  # training processes that `panda run` starts here, one a GPU; one when left out
    processes: int | None = Field(None, gt=0)  # the same on a CPU, to try what several do
    # How weights, gradients and moments lie on several processes: copies; gradients and moments in parts; all in parts; in parts inside a node. auto: by memory.
    sharding: Literal["auto", "replicate", "shard_gradients", "shard_all", "hybrid"] = "auto"
    engine: Literal["local", "ray"] = "local"  # where shard tasks of data stages run; ray needs pandallm[ray]
    ray_address: str | None = None  # of a running cluster; without it Ray is started here
    save_every_seconds: float = Field(60.0, gt=0)
    keep_checkpoints: int = Field(2, gt=0)  # of a stage under way; a finished stage keeps none
    stop_after_minutes: float | None = Field(None, gt=0)
    deterministic: bool = True
    # Who else gets the numbers while a stage trains: tensorboard, wandb, mlflow, trackio, or module:function of one's own.
    tracking: tuple[str, ...] = ()
    store: str = ".panda/store"
    runs: str = "runs"


class Recipe(Spec):
    """One recipe: base, corpora, stages, evaluation, release."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 42
    paths: dict[str, str] = Field(default_factory=dict)  # ${name} in any `files`; relative to the recipe's file
    world: WorldSpec | None = None  # makes ${world}
    base: BaseSpec
    corpora: dict[str, CorpusSpec] = Field(default_factory=dict)
    stages: dict[str, StageSpec] = Field(default_factory=dict)
    tasks: dict[str, str] = Field(default_factory=dict)  # task name -> its files (instead of the task's own)
    evaluate: EvaluateSpec | None = None
    release: ReleaseSpec | None = None
    runtime: RuntimeSpec = RuntimeSpec()

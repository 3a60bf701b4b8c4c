"""Settings of an evaluation."""

from typing import Literal

from pydantic import Field

from pandallm.model.spec import Dtype
from pandallm.spec import Spec


class LimitSpec(Spec):
    """How many questions of each task are scored: a fixed random sample (by hash of the question's id), null for all."""

    likelihood: int | None = Field(None, gt=0)
    generation: int | None = Field(None, gt=0)


class SelectSpec(Spec):
    """Which rows make one number: task(s), prompts, group; `model` for controls."""

    tasks: tuple[str, ...]
    prompts: tuple[str, ...] | Literal["all"] = "all"
    group: str | None = None
    method: Literal["likelihood", "generation"] = "likelihood"


class EvaluateSpec(Spec):
    """What is measured on which models; `headline` and `controls` are fixed here, before anything runs."""

    models: tuple[str, ...] = ("base", "pretrain", "instruct")
    tasks: tuple[str, ...] = ()
    prompts: tuple[str, ...] | Literal["all"] = "all"
    # Prompts for generation where they are others than `prompts`; only those whose end asks for a letter (`generate: true`) are used.
    generation_prompts: tuple[str, ...] | None = None
    methods: tuple[Literal["likelihood", "generation"], ...] = ("likelihood",)
    max_new_tokens: int = Field(64, gt=0)
    limit: LimitSpec = LimitSpec()
    dtype: Dtype = "float32"
    batch_tokens: int = Field(8192, gt=0)
    bits_per_byte: tuple[str, ...] = ()  # corpora whose held-out documents are scored
    headline: SelectSpec | None = None
    controls: dict[str, SelectSpec] = Field(default_factory=dict)  # scored on the last of `models`
    confidence: float = Field(0.95, gt=0.5, lt=1)

"""Settings of an evaluation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pandallm.model.spec import Dtype
from pandallm.spec import Spec

Normalize = Literal["sum", "characters", "bytes", "unconditional"]
Chat = Literal["off", "on", "both"]


class LimitSpec(Spec):
    """How much of each task is scored, null for all: fixed random samples, by hash of the passage's or question's id."""

    likelihood: int | None = Field(None, gt=0)
    generation: int | None = Field(None, gt=0)
    passages: int | None = Field(None, gt=0)  # whole passages with all their questions, drawn before the others


class SelectSpec(Spec):
    """Which rows make one number: task(s), prompts, group; `model` for controls."""

    tasks: tuple[str, ...]
    prompts: tuple[str, ...] | Literal["all"] = "all"
    group: str | None = None
    method: Literal["likelihood", "generation"] = "likelihood"


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


def _on_or_off(value: Any) -> Any:
    """YAML reads `on` and `off` as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class EvaluateSpec(Spec):
    """What is measured on which models; `headline` and `controls` are fixed here, before anything runs."""

    models: tuple[str, ...] = ("base", "pretrain", "instruct")
    tasks: tuple[str, ...] = ()
    prompts: tuple[str, ...] | Literal["all"] = "all"
    # Prompts for generation where they are others than `prompts`; only those whose end asks for a letter (`generate: true`) are used.
    generation_prompts: tuple[str, ...] | None = None
    methods: tuple[Literal["likelihood", "generation"], ...] = ("likelihood",)
    # Examples before a question; several numbers are scored beside each other, the first one makes the headline.
    shots: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_several, json_schema_input_type=int | list[int])
    ] = Field((0,), min_length=1)
    chat: Annotated[Chat, BeforeValidator(_on_or_off)] = (
        "off"  # the model's chat template; `both` also tells the difference
    )
    orders: int = Field(1, ge=1)  # rotations of the options, for prompts that show them
    normalize: Normalize = "sum"  # which score of an option's text makes the choice
    unconditional: bool = False  # also score options without passage and question (`normalize: unconditional` does)
    on_long: Literal["cut", "refuse"] = "cut"  # prompts longer than the model: cut the passage's middle, or refuse
    max_new_tokens: int = Field(64, gt=0)
    limit: LimitSpec = LimitSpec()
    dtype: Dtype = "float32"
    batch_tokens: int = Field(8192, gt=0)
    bits_per_byte: tuple[str, ...] = ()  # corpora whose held-out documents are scored
    headline: SelectSpec | None = None
    controls: dict[str, SelectSpec] = Field(default_factory=dict)  # scored on the last of `models`
    confidence: float = Field(0.95, gt=0.5, lt=1)


class CompareSpec(Spec):
    """How models are compared. Shares, not points: `margin` .02 is two points."""

    tasks: tuple[str, ...] = ()  # all where empty
    baseline: str | None = None  # compare each model with this one only; null: every pair
    margin: float = Field(0.02, gt=0, lt=1)  # differences smaller than this do not matter
    confidence: float = Field(0.95, gt=0.5, lt=1)
    published: bool = False  # the 2023 paper's counts beside ours
    common: bool = False  # leave out what not all models were asked

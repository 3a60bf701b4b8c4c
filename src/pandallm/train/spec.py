"""Settings of one training stage."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pandallm.data.spec import ChatTemplateName
from pandallm.model.spec import Dtype
from pandallm.spec import Spec


class OptimizerSpec(Spec):
    """An optimizer and its schedule. `warmup` < 1 is a share of the steps, else a number of steps; lr ends at `final_lr_share` x lr."""

    kind: str = "adamw"  # adamw, adamw8bit, muon, or a name registered with `pandallm.train.optimizers.register`
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    warmup: float = Field(0.01, ge=0)
    schedule: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    final_lr_share: float = Field(0.0, ge=0, le=1)
    decay_share: float = Field(0.2, gt=0, le=1)  # wsd only
    schedule_steps: int | None = Field(
        None, gt=0
    )  # length that the schedule is made for; the stage's own when left out


class FullMethod(Spec):
    """Every weight that `trainable` and `freeze` leave is trained."""

    kind: Literal["full"] = "full"


class LoraMethod(Spec):
    """Low-rank adapters (Hu et al. 2021) on frozen weights, through peft; merged into the saved model, and saved beside it.

    `targets` are names of linear layers, or `all-linear`. Needs pandallm[lora]; `qlora`, which keeps the frozen weights of all
    linear layers in four bits (Dettmers et al. 2023), needs pandallm[qlora].
    """

    kind: Literal["lora", "qlora"]
    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    targets: tuple[str, ...] = ("all-linear",)
    train_embeddings: bool = False  # embedding and head in full beside the adapters


Method = Annotated[FullMethod | LoraMethod, Field(discriminator="kind")]


class WatchSpec(Spec):
    """Bits per byte of held-out text while the stage trains (`corpora.NAME.held_out` keeps it from training).

    `patience`: stop after so many evaluations in a row without a new best. `keep_best`: save the weights of the best evaluation
    instead of the last ones.
    """

    every: int = Field(100, gt=0)  # steps between evaluations; the start and the end are scored as well
    corpora: tuple[str, ...] = ()  # whose held-out text; the stage's own where left out
    # Of these, whose text decides about patience and keep_best: the stage's own where it is watched, else all. A base's language
    # that is only watched for what is forgotten must not stop the learning of another.
    decide: tuple[str, ...] = ()
    documents: int | None = Field(200, gt=0)  # at most so many of each corpus, evenly spaced; null: all
    patience: int | None = Field(None, gt=0)
    keep_best: bool = False


class TrainSpec(Spec):
    """What changes the weights. Exactly one of `epochs`, `documents`, `tokens`, `steps` is the budget."""

    epochs: float | None = Field(None, gt=0)
    documents: int | None = Field(None, gt=0)  # examples read, repeated ones each time
    tokens: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    sequence_length: int = Field(2048, gt=1)
    batch_sequences: int = Field(8, gt=0)  # packed rows per optimizer step
    # How dialogues are written (docs/chat-templates.md); plain documents stay as they are. Saved with the stage's tokenizer.
    chat_template: ChatTemplateName = "none"
    loss_on: Literal["answers", "all"] = "answers"  # all: questions and system messages are trained too
    micro_batch_tokens: int = Field(4096, gt=0)  # tokens per forward; does not change the loss beyond rounding
    optimizer: OptimizerSpec
    dtype: Dtype | Literal["auto"] = (
        "float32"  # auto: bfloat16 where the processor computes in it, else float32; resolved before the key
    )
    gradient_checkpointing: bool | Literal["selective"] = (
        False  # selective: keep products, compute the cheap rest again
    )
    # How it is computed; auto: a fixed rule on a CPU, the fastest of a short probe on a GPU. Resolved before the key.
    variant: Literal["auto", "plain", "compiled", "liger"] = "auto"
    method: Method = FullMethod()
    # Patterns of parameter names, as in `model.layers.*.mlp.*`; `embeddings` stands for the embedding and the head, `new_rows`
    # for the rows that base.extend added to them.
    trainable: tuple[str, ...] = ("*",)
    freeze: tuple[str, ...] = ()
    watch: WatchSpec | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainSpec":
        given = [n for n in ("epochs", "documents", "tokens", "steps") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of epochs, documents, tokens, steps (given: {', '.join(given) or 'none'})"
            )
        return self

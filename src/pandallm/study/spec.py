"""Settings of a study: a recipe, factors with levels, seeds, contrasts, metrics."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pandallm.spec import Spec

#: Names of factors, levels and arms become names of folders.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+%-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(ge=0, le=1)]


def _level(value: Any) -> str:
    """What a plain value is called as a level."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _named(levels: Any) -> Any:
    """A list of plain values is short for levels that are called as they are written."""
    if not isinstance(levels, list | tuple):
        return levels
    named: dict[str, Any] = {}
    for value in levels:
        if value is not None and not isinstance(value, str | int | float):
            raise ValueError("a list of levels holds plain values; give others a name: levels: {NAME: VALUE}")
        name = _level(value)
        if name in named:
            raise ValueError(f"level '{name}' is given twice; take one out")
        named[name] = value
    return named


class Factor(Spec):
    """What all factors have. The first level is what others are compared with unless `baseline` names another."""

    levels: dict[Name, Any] = Field(min_length=2)
    baseline: str | None = None

    @field_validator("levels", mode="before")
    @classmethod
    def _levels(cls, value: Any) -> Any:
        return _named(value)

    @model_validator(mode="after")
    def _known_baseline(self) -> "Factor":
        if self.baseline is not None and self.baseline not in self.levels:
            raise ValueError(f"baseline '{self.baseline}' is not one of the levels {', '.join(self.levels)}")
        return self

    @property
    def reference(self) -> str:
        """The level that the others are compared with."""
        return self.baseline or next(iter(self.levels))


class FieldFactor(Factor):
    """Any field of the recipe; several fields get the same value. `null` takes a named entry (a stage, a source) out."""

    kind: Literal["field"] = "field"
    field: str | tuple[str, ...]


class SetFactor(Factor):
    """Levels that each set several fields: `levels: {NAME: {a.b.c: value, ..}}`. An empty mapping leaves the recipe as it is."""

    kind: Literal["set"] = "set"
    levels: dict[Name, dict[str, Any]] = Field(min_length=2)


class ShareFactor(Factor):
    """Share of a corpus's training tokens that one source gets; the others divide the rest in their old proportions.

    Where the recipe sets no shares, the bytes that it expects are their proportions, or `weights` (of all sources but this one). 0 takes
    the source out, 1 the others.
    """

    kind: Literal["share"]
    corpus: str
    source: str
    levels: dict[Name, Share] = Field(min_length=2)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_epochs: float | None = Field(None, gt=0)  # of every source; the recipe's own when left out


class LanguageShareFactor(Factor):
    """Share of a corpus's training tokens in one language (the sources' `language`); within it and outside, old proportions.

    Where the recipe sets no shares, the bytes that it expects are the proportions, or `weights` (of all sources).
    """

    kind: Literal["language_share"]
    corpus: str
    language: str = "zh"
    levels: dict[Name, Share] = Field(min_length=2)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_epochs: float | None = Field(None, gt=0)


class ReplayFactor(Factor):
    """Share of older text (`source`) in a stage's corpus. `equal: rest` keeps the other tokens as many as without it.

    `equal: total` keeps the stage's tokens; the replay then takes the place of other text. The stage's budget is in tokens or steps.
    """

    kind: Literal["replay"]
    stage: str
    source: str
    levels: dict[Name, Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=2)
    equal: Literal["rest", "total"] = "rest"
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_epochs: float | None = Field(None, gt=0)


class BudgetFactor(Factor):
    """How long a stage trains (`base` is the first pretraining of a base from scratch)."""

    kind: Literal["budget"]
    stage: str
    of: Literal["tokens", "documents", "steps", "epochs"] = "tokens"
    levels: dict[Name, Annotated[float, Field(gt=0)]] = Field(min_length=2)


class QuantityFactor(Factor):
    """How many records of one source are read at all (`max_records`; null: all). The stage's budget says whether they are repeated."""

    kind: Literal["quantity"]
    corpus: str
    source: str
    levels: dict[Name, Annotated[int, Field(gt=0)] | None] = Field(min_length=2)


class QualityFactor(Factor):
    """Least quality of an example of a corpus (null: no cut). The corpus needs a `score` step or its sources a `quality_field`."""

    kind: Literal["quality"]
    corpus: str
    source: str | None = None  # every source when left out
    levels: dict[Name, float | None] = Field(min_length=2)


class NoiseFactor(Factor):
    """Share of the world's instructions whose answer is a wrong one. Only for recipes with a `world`."""

    kind: Literal["noise"]
    levels: dict[Name, Share] = Field(min_length=2)


class VocabularyFactor(Factor):
    """Size of the vocabulary: new pieces of `base.extend` (0: none), or the whole size of a base from scratch."""

    kind: Literal["vocabulary"]
    levels: dict[Name, Annotated[int, Field(ge=0)]] = Field(min_length=2)


class DedupFactor(Factor):
    """How a corpus is deduplicated."""

    kind: Literal["dedup"]
    corpus: str
    levels: dict[Name, Literal["none", "exact", "minhash"]] = Field(min_length=2)


class LeaveOutFactor(Factor):
    """A corpus without each of its sources in turn, against all of them (`all`). Without `levels`: every source."""

    kind: Literal["leave_out"]
    corpus: str
    levels: dict[Name, Any] = Field(default_factory=dict)


Arrangement = Literal["two_stage", "one_stage", "decay"]


class UpSampled(Spec):
    """One stage in which the second stage's data is read so many times as often as in two stages, in the same tokens."""

    upsample: float = Field(gt=0)


class StagingFactor(Factor):
    """When the data of the stage `second` is read: after `first`, mixed into it, or in its decay phase. Equal tokens in all arms.

    two_stage: `first`, then `second`, with `tokens` = [first's, second's]. one_stage: both corpora in one stage of all tokens, each read
    as much as in two stages; {upsample: 4}: the second's four times as much, in the same tokens. decay: `first` at a constant learning
    rate for 1 - `decay_share` of all tokens, then both corpora while it falls to zero (MiniCPM, arXiv 2404.06395). Arms of one stage
    keep the name `second` for their model. `weights`: proportions of the first corpus's sources, where the recipe has neither shares nor
    expected bytes.
    """

    kind: Literal["staging"]
    first: str
    second: str
    tokens: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    levels: dict[Name, Arrangement | UpSampled] = Field(min_length=2)
    decay_share: float = Field(0.2, gt=0, lt=1)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_epochs: float = Field(64.0, gt=0)


AnyFactor = Annotated[
    FieldFactor
    | SetFactor
    | ShareFactor
    | LanguageShareFactor
    | ReplayFactor
    | BudgetFactor
    | QuantityFactor
    | QualityFactor
    | NoiseFactor
    | VocabularyFactor
    | DedupFactor
    | LeaveOutFactor
    | StagingFactor,
    Field(discriminator="kind"),
]


class FullGrid(Spec):
    """Every combination of levels."""

    kind: Literal["full"] = "full"


class OneAtATimeGrid(Spec):
    """The arm of all baselines, and those that differ from it in one factor."""

    kind: Literal["one_at_a_time"]


class FractionalGrid(Spec):
    """So many arms of the full grid, chosen so that the main effects are estimated best (D-optimal); the baselines' arm is among them."""

    kind: Literal["fractional"]
    arms: int = Field(gt=1)


Grid = Annotated[FullGrid | OneAtATimeGrid | FractionalGrid, Field(discriminator="kind")]


class BudgetSpec(Spec):
    """The fixed budget of a stage, the same in every arm. Exactly one."""

    tokens: int | None = Field(None, gt=0)
    documents: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)  # the same text in every arm, so also equal bytes
    # Of training, attention's products of tokens with tokens left out; becomes tokens by the shape of each arm's model, a vocabulary that
    # is yet to be made at its largest.
    flops: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "BudgetSpec":
        if len(self.given()) != 1:
            raise ValueError("give exactly one of tokens, documents, steps, epochs, flops")
        return self

    def given(self) -> dict[str, float]:
        """The one field that is set."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


class AccuracyMetric(Spec):
    """Share of right answers, mean over tasks' questions and prompts. `model`: a stage's name, or `last` of `evaluate.models`."""

    kind: Literal["accuracy"]
    tasks: tuple[str, ...] = Field(min_length=1)
    prompts: tuple[str, ...] | Literal["all"] = "all"
    group: str | None = None
    method: Literal["likelihood", "generation"] = "likelihood"
    model: str = "last"


class BitsMetric(Spec):
    """Bits per byte of held-out text; lower is better. Comparisons are relative changes. It can be compared across tokenizers."""

    kind: Literal["bits_per_byte"]
    corpus: str | None = None  # every corpus that the recipe scores
    source: str | None = None
    language: str | None = None
    model: str = "last"


Metric = Annotated[AccuracyMetric | BitsMetric, Field(discriminator="kind")]
Selection = str | dict[str, str]


class ContrastSpec(Spec):
    """A claim about `b` against `a`. With `factor`: two of its levels. Without: two arms, by levels of several factors.

    All arms of the grid that a side leaves open are averaged, in pairs that differ in nothing else.
    """

    claim: str = ""
    claim_zh: str = ""  # the claim in Chinese, for Chinese pages
    factor: str | None = None
    a: Selection
    b: Selection
    expect: Literal["better", "worse", "different", "same"] = "different"
    metric: str | None = None  # the primary metric
    margin: float | None = Field(None, gt=0)  # differences within it do not matter; the study's own when left out

    @field_validator("a", "b", mode="before")
    @classmethod
    def _plain_levels(cls, value: Any) -> Any:
        """Levels that are numbers may be written as numbers."""
        if isinstance(value, dict):
            return {k: _level(v) if isinstance(v, int | float) else v for k, v in value.items()}
        return _level(value) if isinstance(value, int | float) else value


class MarginSpec(Spec):
    """Differences within it do not matter: of accuracies as shares (.02 is two points), of bits per byte relative."""

    accuracy: float = Field(0.02, gt=0)
    bits_per_byte: float = Field(0.01, gt=0)


Subject = Literal["quantity", "quality", "language", "staging", "vocabulary", "training"]


class StudySpec(Spec):
    """A study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    description_zh: str = ""  # the same in Chinese, for Chinese pages
    subject: Subject | None = None  # where the blueprint tells of it; from the kind of the first factor when left out
    recipe: str  # a file, relative to the study's, or the name of a recipe that ships with the package
    set: dict[str, Any] = Field(default_factory=dict)  # fields of the recipe, in every arm
    factors: dict[Name, AnyFactor] = Field(min_length=1)
    grid: Grid = FullGrid()
    budget: dict[str, BudgetSpec] = Field(default_factory=dict)  # by stage
    seeds: tuple[int, ...] = Field((1, 2, 3, 4, 5), min_length=1)
    metrics: dict[Name, Metric] = Field(
        default_factory=dict
    )  # the headline and bits per byte by language when left out
    primary: str | None = None  # the first metric when left out
    contrasts: dict[Name, ContrastSpec] = Field(default_factory=dict)  # each level against the baseline when left out
    margin: MarginSpec = MarginSpec()
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @field_validator("factors", mode="before")
    @classmethod
    def _kinds(cls, value: Any) -> Any:
        """A factor without a kind is one of a field, or of fields set by its levels."""
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": "field" if "field" in factor else "set", **factor}
            if isinstance(factor, dict) and "kind" not in factor
            else factor
            for name, factor in value.items()
        }

    @field_validator("grid", mode="before")
    @classmethod
    def _short_grid(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _short_seeds(cls, value: Any) -> Any:
        """`seeds: 5` is short for 1 to 5."""
        return tuple(range(1, value + 1)) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _seeds_differ(self) -> "StudySpec":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice in `seeds`; take one out")
        if self.primary is not None and self.metrics and self.primary not in self.metrics:
            raise ValueError(f"primary: '{self.primary}' is not one of the metrics {', '.join(self.metrics)}")
        return self

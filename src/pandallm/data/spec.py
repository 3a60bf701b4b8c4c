"""Settings of corpora: sources, cleaning, dedup, decontamination, vocabulary, packing."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pandallm.data.clean_spec import CleanStep, LengthStep, NormalizeStep
from pandallm.spec import Spec

AdapterName = Literal[
    "text",
    "wiki",
    "news",
    "wudao",
    "clue",
    "baike_qa",
    "webtext_qa",
    "translation",
    "alpaca",
    "belle",
    "firefly",
    "flan",
    "coig",
    "exam",
    "conversations",
    "messages",
    "moss",
    "sharegpt",
]


class ExactDedup(Spec):
    """Same text after NFKC, width and blank folding."""

    kind: Literal["exact"] = "exact"


class MinhashDedup(Spec):
    """MinHash LSH candidates, every pair verified by exact Jaccard on character n-grams; includes exact dedup."""

    kind: Literal["minhash"] = "minhash"
    ngram_chars: int = Field(default=5, gt=0)
    threshold: float = Field(default=0.8, gt=0, le=1)
    # 12 bands of 5: pairs at Jaccard .8 become candidates with probability .991, at .85 with .999; the exact check rejects what is less alike.
    permutations: int = Field(default=60, gt=0)
    bands: int = Field(default=12, gt=0)

    @model_validator(mode="after")
    def _whole_bands(self) -> "MinhashDedup":
        if self.permutations % self.bands:
            raise ValueError(f"permutations ({self.permutations}) must be a multiple of bands ({self.bands})")
        return self


class NoDedup(Spec):
    kind: Literal["none"] = "none"


#: How a training stage writes dialogues: turn after turn without a template, as the base's own template, or as one of ours
#: (data/chat_templates).
ChatTemplateName = Literal["none", "base", "chatml", "llama2", "llama3", "panda", "qwen"]

Dedup = Annotated[ExactDedup | MinhashDedup | NoDedup, Field(discriminator="kind")]


class DecontaminateSpec(Spec):
    """Examples that share `ngram_chars` characters in a row (NFKC, punctuation and blanks out) with benchmarks.

    action `drop` takes them out; `report` keeps them and only lists them in contamination.json.
    """

    against: tuple[str, ...] = ()
    ngram_chars: int = Field(default=13, ge=4)
    action: Literal["drop", "report"] = "drop"


class HeldOutSpec(Spec):
    """Documents kept from training for bits per byte, chosen by content hash after dedup, per source.

    `documents`: so many; `share`: so large a part of the source's documents (the larger of both where both are given).
    """

    documents: int = Field(default=0, ge=0)
    share: float = Field(default=0.0, ge=0, lt=1)


class DatasetSpec(Spec):
    """A data set of the Hugging Face hub, or a folder that `datasets` reads (needs pandallm[datasets]).

    files: these files of the repository as they stand (patterns), without `datasets`; config and split do not count then.
    """

    id: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    files: str | tuple[str, ...] = ()


class TemplatesSpec(Spec):
    """Instruction templates: a name of pandallm/data/templates or a YAML file. Drawn per example by a hash of its content and `seed`."""

    file: str
    seed: int = 0


class ExpectedSpec(Spec):
    """What a source is said to hold where its files are not here: records, and UTF-8 bytes or tokens of one. For plans; no run reads it."""

    records: int = Field(gt=0)
    bytes_per_record: float | None = Field(default=None, gt=0)
    tokens_per_record: float | None = Field(default=None, gt=0)


class SourceSpec(Spec):
    """One corpus in files or a data set. `share`: wanted share of training tokens (all sources or none set it)."""

    adapter: AdapterName
    files: (
        str | tuple[str, ...]
    ) = ()  # file, directory or glob (.jsonl .json .txt .parquet; .gz .zst); ${variables} of the recipe
    dataset: DatasetSpec | None = None  # instead of files; a plain text is its id
    options: dict[str, str] = Field(default_factory=dict)  # adapter's own, e.g. {direction: en-zh}
    language: str = "zh"
    licence: str = ""
    share: float | None = Field(default=None, gt=0)
    max_epochs: float = Field(default=4.0, gt=0)  # how often at most a source may be repeated to reach its share
    max_records: int | None = Field(default=None, gt=0)
    clean: tuple[CleanStep, ...] | None = None  # instead of the corpus's
    held_out: HeldOutSpec | None = None  # instead of the corpus's
    templates: TemplatesSpec | None = None  # instead of the adapter's own
    quality_field: str | None = None  # a number of the record that becomes the example's quality
    expected: ExpectedSpec | None = None
    min_quality: float | None = None  # cut at packing: examples below it, or without a quality, are not trained on

    @field_validator("dataset", "templates", mode="before")
    @classmethod
    def _short_form(cls, value: Any, info: ValidationInfo) -> Any:
        return {"id" if info.field_name == "dataset" else "file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> "SourceSpec":
        if bool(self.files) == bool(self.dataset):
            raise ValueError("give either files or dataset" if not self.files else "give files or dataset, not both")
        return self


class CorpusSpec(Spec):
    """Several sources, cleaned together."""

    sources: dict[str, SourceSpec] = Field(min_length=1)
    clean: tuple[CleanStep, ...] = (NormalizeStep(), LengthStep())
    dedup: Dedup = ExactDedup()
    decontaminate: DecontaminateSpec | None = None
    held_out: HeldOutSpec = HeldOutSpec()
    packing: Literal["best_fit", "one_per_sequence", "concatenate"] = "best_fit"


def _check_special(tokens: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tokens)) < len(tokens) or not all(t and t == t.strip() for t in tokens):
        raise ValueError("special tokens: one is given twice, is empty, or has blanks around it")
    return tokens


class VocabularySpec(Spec):
    """A tokenizer trained from scratch on some corpora: BPE with byte fallback, a Hugging Face fast tokenizer."""

    size: int = Field(gt=300)
    special: tuple[
        str, ...
    ] = ()  # special tokens beside EOS and padding, as a chat template needs them; part of `size`
    corpora: tuple[str, ...] = ()
    split: Literal["llama3", "han_characters"] = (
        "llama3"  # han_characters: each Han character and line break stands alone
    )

    _special = field_validator("special")(_check_special)


class ExtendSpec(Spec):
    """New pieces for the vocabulary of an existing base, learnt on cleaned corpora; the rows for them; see docs/vocabulary.md."""

    size: int = Field(default=0, ge=0)  # at most so many new pieces
    special: tuple[str, ...] = ()  # special tokens, as a chat template needs them, after the pieces
    corpora: tuple[str, ...] = ()  # all of the recipe when left out
    # han: pieces of Han characters and of CJK and full-width signs alone; non_ascii: of anything beyond ASCII. Other text keeps its tokens.
    characters: Literal["han", "non_ascii"] = "han"
    min_frequency: int = Field(default=10, gt=0)  # in the sample; a row that is hardly ever trained is of no use
    max_characters: int = Field(default=16, gt=0)  # of a piece
    # UTF-8 text that pieces are learnt on, spread evenly over the corpora.
    sample_megabytes: float = Field(default=16.0, gt=0)
    init: Literal["mean", "mean_all", "normal"] = "mean"  # of the old pieces' rows; of all rows; normal about that
    pad_to_multiple: int = Field(default=64, gt=0)  # of the number of rows

    @model_validator(mode="after")
    def _something_new(self) -> "ExtendSpec":
        if not self.size and not self.special:
            raise ValueError("give size, the number of new pieces, or special, a list of special tokens")
        return self

    _special = field_validator("special")(_check_special)

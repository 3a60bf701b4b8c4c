"""Settings of corpora: sources, cleaning, dedup, decontamination, vocabulary, packing."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pandallm.spec import Spec

AdapterName = Literal[
    "text", "wiki", "news", "baike_qa", "webtext_qa", "translation", "alpaca", "exam", "coig", "conversations"
]


class NormalizeStep(Spec):
    """Unicode NFC, control characters out, line ends unified, runs of blank lines cut. Chinese punctuation stays."""

    kind: Literal["normalize"] = "normalize"
    form: Literal["NFC"] = "NFC"


class LengthStep(Spec):
    """Drop examples whose turns together have fewer or more characters."""

    kind: Literal["length"] = "length"
    min_chars: int = 1
    max_chars: int | None = None


class LanguageStep(Spec):
    """Drop examples whose script is not wanted: `zh` needs Han, `en` Latin letters (min_share of all letters)."""

    kind: Literal["language"] = "language"
    keep: tuple[str, ...] = ("zh", "en")
    min_share: float = 0.3


class RepetitionStep(Spec):
    """Drop examples of which one character 5-gram makes up more than `max_share` (Gopher's rule on characters)."""

    kind: Literal["repetition"] = "repetition"
    max_share: float = 0.2


CleanStep = Annotated[NormalizeStep | LengthStep | LanguageStep | RepetitionStep, Field(discriminator="kind")]


class ExactDedup(Spec):
    """Same text after NFKC, width and blank folding."""

    kind: Literal["exact"] = "exact"


class MinhashDedup(Spec):
    """MinHash LSH candidates, every pair verified by exact Jaccard on character n-grams; includes exact dedup."""

    kind: Literal["minhash"] = "minhash"
    ngram_chars: int = Field(default=5, gt=0)
    threshold: float = Field(default=0.8, gt=0, le=1)
    permutations: int = Field(default=128, gt=0)
    bands: int = Field(default=16, gt=0)

    @model_validator(mode="after")
    def _whole_bands(self) -> "MinhashDedup":
        if self.permutations % self.bands:
            raise ValueError(f"permutations ({self.permutations}) must be a multiple of bands ({self.bands})")
        return self


class NoDedup(Spec):
    kind: Literal["none"] = "none"


Dedup = Annotated[ExactDedup | MinhashDedup | NoDedup, Field(discriminator="kind")]


class DecontaminateSpec(Spec):
    """Drop examples that share `ngram_chars` characters in a row (NFKC, punctuation and blanks out) with benchmarks."""

    against: tuple[str, ...] = ()
    ngram_chars: int = Field(default=13, ge=4)


class HeldOutSpec(Spec):
    """Documents kept from training for bits per byte, chosen by content hash after dedup, per corpus and source."""

    documents: int = Field(default=0, ge=0)  # per source


class SourceSpec(Spec):
    """One corpus in files. `share`: wanted share of training tokens (all sources or none set it)."""

    adapter: AdapterName
    files: str | tuple[str, ...]  # file, directory or glob (.jsonl .json .txt .gz .zst); ${variables} of the recipe
    options: dict[str, str] = Field(default_factory=dict)  # adapter's own, e.g. {direction: en-zh}
    language: str = "zh"
    licence: str = ""
    share: float | None = Field(default=None, gt=0)
    max_epochs: float = Field(default=4.0, gt=0)  # how often at most a source may be repeated to reach its share
    max_records: int | None = Field(default=None, gt=0)
    clean: tuple[CleanStep, ...] | None = None  # instead of the corpus's


class CorpusSpec(Spec):
    """Several sources, cleaned together."""

    sources: dict[str, SourceSpec] = Field(min_length=1)
    clean: tuple[CleanStep, ...] = (NormalizeStep(), LengthStep())
    dedup: Dedup = ExactDedup()
    decontaminate: DecontaminateSpec | None = None
    held_out: HeldOutSpec = HeldOutSpec()
    packing: Literal["best_fit", "one_per_sequence", "concatenate"] = "best_fit"


class VocabularySpec(Spec):
    """A tokenizer trained from scratch on some corpora: BPE with byte fallback, a Hugging Face fast tokenizer."""

    size: int = Field(gt=300)
    corpora: tuple[str, ...] = ()
    split: Literal["llama3", "han_characters"] = (
        "llama3"  # han_characters: each Han character and line break stands alone
    )

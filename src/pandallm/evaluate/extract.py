"""Which option a completion names: one strict grammar, and the 2023 code's reading for reproduction.

Strict: what is not clearly one option is None (unparsed; counted as wrong, its rate shown). Rules, in order, on the
text after NFKC (full-width letters, brackets and colons become half-width; ① to ⑩ become (A) to (J)):

1. The completion opens with a letter that stands alone: `B`, `B。`, `(B)`, `【B】`, `B项`, `B: some text`
   (unless the text is another option's, or `A: ..` and `B: ..` begin a list).
   An opening with two letters joined (`A和B`, `A或B`, `A、B`) names none.
2. A repeated list of options (lines `A: ..`, `B: ..`) and whatever follows a repeated prompt are ignored from here on.
3. A marked answer: `答案：B`, `答案是B`, `正确选项为B`, `ANSWER: B`, `the answer is (B)`, `\\boxed{B}`; then
   `选B`, `选择B`. Not `不是B`, `不选B`. Marks of one rank that disagree name none.
4. A letter in brackets, `(B)` `【B】` `[B]`, if all such letters agree.
5. The first line, or what follows `答案是`, is the text of exactly one option.

A letter counts only where it is an option's, and never inside a word (`DNA`, `CCTV`, `B超`, `A股`).
"""

import re
import unicodedata
from collections.abc import Sequence

from pandallm.tasks.types import LETTERS

_CIRCLED = {ord(c): f"({LETTERS[i]})" for i, c in enumerate("①②③④⑤⑥⑦⑧⑨⑩")}
_OPEN, _CLOSE = r"[(\[【「『\"'“‘<*`{]*", r"[)\]】」』\"'”’>*`}]*"
# A letter on its own is followed by the end, by punctuation, or by a word that speaks about options.
_OPENING = re.compile(rf"^{_OPEN}([A-J])(?:{_CLOSE})(?=\s*$|\s*\n|\s*[.,;:。、!?)\]】]|\s*(?:项|选项|是正确|正确|最))")
_JOINED = re.compile(
    rf"^{_OPEN}[A-J]{_CLOSE}\s*(?:和|或|与|及|以及|跟|,|、|/|and|or)\s*{_OPEN}[A-J]{_CLOSE}(?![A-Za-z])"
)
_END = r"(?![A-Za-z0-9])(?!\s*[股超型轮座级班楼栋区])(?!\s*(?:和|或|与|及|、|,|/)\s*[A-J](?![A-Za-z]))"
_NOT = r"(?<!不)(?<!没)(?<!非)"
_MARK = (
    rf"(?:{_NOT}(?:答案|正确选项|正确的选项|正确的是|选项)\s*(?:应该|应当|应)?\s*(?:是|为|选)?\s*:?\s*"
    r"|(?:the\s+)?(?:correct\s+|best\s+|right\s+)?(?:answer|option|choice)(?:\s+is\s*:?|\s*:)\s*"
    r"|\\boxed\s*)"
)
_MARKED = re.compile(rf"{_MARK}{_OPEN}(?:选项|option\s+)?{_OPEN}([A-Ja-j]){_CLOSE}{_END}", re.IGNORECASE)
_CHOSEN = re.compile(rf"{_NOT}选(?:择|项|定)?\s*:?\s*{_OPEN}([A-J]){_CLOSE}{_END}")
_BRACKETED = re.compile(r"[(\[【]\s*([A-J])\s*[)\]】]")
_LISTED = re.compile(r"^[ \t]*[(\[]?([A-J])[)\]]?\s*[:.、)][^\n]*$", re.MULTILINE)
_ECHO = re.compile(r"\n\s*(?:阅读下面的|请阅读|问题\s*:|Question\s*:|Passage\s*:)")
_MARKED_TEXT = re.compile(rf"{_MARK}([^\n]+)", re.IGNORECASE)
_EDGES = " \t\r\n.,;:。,;:、!?\"'“”‘’「」『』()[]【】<>*`"


def extract(completion: str, options: Sequence[str]) -> int | None:
    """Position of the option that `completion` names, or None where none or more than one is named."""
    text = normalize(completion)
    allowed = LETTERS[: len(options)]
    if _JOINED.match(text):
        return None
    opening = _opening(text, options)
    if opening is not None:
        return opening if opening < len(options) else None
    text = _without_echo(text)
    for pattern in (_MARKED, _CHOSEN, _BRACKETED):
        found = {letter.upper() for letter in pattern.findall(text)}
        if found:
            letter = found.pop()
            return allowed.index(letter) if not found and letter in allowed else None
    texts = [_bare(o) for o in options]
    lines = text.strip().split("\n", 1)
    for candidate in [lines[0], *(m[1] for m in _MARKED_TEXT.finditer(text))]:
        if _bare(candidate) and texts.count(_bare(candidate)) == 1:
            return texts.index(_bare(candidate))
    return None


def settled(completion: str, options: Sequence[str]) -> bool:
    """Whether more text cannot change `extract`: the first line is over, and is a letter alone."""
    text = normalize(completion)
    first, newline, _ = text.partition("\n")
    # A lone "A:" may be the head of a repeated list of options; only a line without a text after it is final.
    return bool(newline) and bool(re.fullmatch(rf"{_OPEN}[A-J]{_CLOSE}[.。]?\s*", first)) and not _JOINED.match(text)


def first_letter_2023(completion: str) -> int | None:
    """The 2023 code's reading: the first A, B, C or D anywhere, also inside a word; None without one.

    Kept to reproduce published numbers, not to score: it takes the A of `DNA` and ignores how many options there are.
    """
    match = re.search(r"[ABCD]", completion)
    return "ABCD".index(match[0]) if match else None


def normalize(text: str) -> str:
    """NFKC with circled numbers as bracketed letters, stripped."""
    return unicodedata.normalize("NFKC", text.translate(_CIRCLED)).strip()


def _bare(text: str) -> str:
    return normalize(text).strip(_EDGES)


def _opening(text: str, options: Sequence[str]) -> int | None:
    """Position of the letter that opens the text on its own; may lie beyond the options."""
    match = re.match(rf"{_OPEN}([A-J]){_CLOSE}", text)
    if not match:
        return None
    position = LETTERS.index(match[1])
    rest = text[match.end() :]
    if _is_list(text):
        return None
    if _OPENING.match(text) or not rest:
        # `B: another option's text` contradicts itself, and `A. Smith` is a name.
        label = re.match(r"\s*[:.、)]\s*(?=\S)", rest)
        if not label or rest.lstrip().startswith("\n") or "\n" in label[0]:
            return position
        said = _bare(rest[label.end() :].split("\n", 1)[0])
        if position >= len(options) or _agrees(said, _bare(options[position])):
            return position
        others = any(_agrees(said, _bare(o)) for o in options)
        return None if others or (label[0].strip() == "." and said[:1].isascii()) else position
    if position < len(options):
        option = _bare(options[position])
        if option and _bare(rest.split("\n", 1)[0]).startswith(option) and not re.match(r"[A-Za-z]", rest):
            return position
    return None


def _agrees(said: str, option: str) -> bool:
    # Cut completions may hold only the beginning of the option.
    return bool(said) and bool(option) and (said.startswith(option) or option.startswith(said))


def _is_list(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()][:2]
    letters = [m[1] for line in lines if (m := _LISTED.match(line))]
    return letters in (["A", "B"], ["B", "C"], ["C", "D"], ["D", "E"])


def _without_echo(text: str) -> str:
    echo = _ECHO.search(text)
    if echo:
        text = text[: echo.start()]
    if len({m[1] for m in _LISTED.finditer(text)}) > 1:
        text = _LISTED.sub("", text)
    return text

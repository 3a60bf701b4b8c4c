r"""Which option a completion names: one strict grammar, and the 2023 code's reading for reproduction.

Strict: what is not clearly one option is None (unparsed; counted as wrong, its rate shown). The text is first folded:
NFKC (full-width letters, brackets and colons become half-width; ① to ⑩ become (A) to (J)), the traditional characters of
the marks become simplified, `\text{B}` becomes B, and reasoning up to `</think>` is dropped (reasoning that never ends
names none). Rules, in order:

1. The first line is a letter alone (`B`, `(B)`, `【B】`, `**B**`, `B。`): that one, whatever follows.
2. The completion opens with a letter that stands alone: `B项`, `B，因为`, `B: some text` (unless the text is another
   option's, or `A: ..` and `B: ..` begin a list). Opening with joined letters (`A和B`, `A或B`, `A、B`) names none, unless a
   conclusion (rule 4) does.
3. A repeated list of options (lines `A: ..`, `B: ..`) and whatever follows a repeated prompt are ignored from here on.
4. Marks, by rank; the letters of the first rank that has any must agree, else none is named:
   conclusions (`\boxed{B}`, `最终答案：B`, `故选B`, `因此答案是B`, `so the answer is B`), then answers (`答案：B`,
   `正确选项为B`, `ANSWER: B`), then choices (`选B`, `选择B`, `I choose B`), then verdicts (`B项正确`, `option B is correct`).
   So of two answers that differ, the one marked as the conclusion counts; without such a mark, none does.
5. A letter in brackets or in bold, `(B)` `【B】` `**B**`, if all such letters agree.
6. The first line is the text of exactly one option, or what follows a mark is.

A letter counts only where it is an option's: not inside a word (`DNA`, `CCTV`, `B超`, `A股`), not as an article (`A dog`),
not denied (`不选B`, `不能选B`, `B项错误`), not joined to another (`答案：B和C`), not with another option's text.
Numbers other than circled ones name nothing.
"""

import re
import unicodedata
from collections.abc import Sequence

from pandallm.tasks.types import LETTERS

_CIRCLED = {ord(c): f"({LETTERS[i]})" for i, c in enumerate("①②③④⑤⑥⑦⑧⑨⑩")}
_SIMPLIFIED = str.maketrans("為選擇項對錯確應該綜終題", "为选择项对错确应该综终题")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_REASONED = re.compile(r"^.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_REASONING = re.compile(r"^\s*<(?:think|thinking|reasoning)>", re.IGNORECASE)

# Bounded, so that a long row of signs is not tried in every way.
_OPEN, _CLOSE = r"[\s(\[【「『\"'“‘<*`{$_#]{0,16}", r"[)\]】」』\"'”’>*`}$_]{0,16}"
_ALONE = re.compile(rf"{_OPEN}(?:选项|选|option|choice)?\s*{_OPEN}([A-J]){_CLOSE}\s*[.。]?{_CLOSE}\s*", re.IGNORECASE)
_JOINT = r"\s*(?:和|或|与|及|以及|跟|还是|,|、|/|&|and\b|or\b)\s*"
_JOINED = re.compile(rf"{_JOINT}{_OPEN}[A-J](?![A-Za-z0-9])")
_JOINED_BEFORE = re.compile(rf"(?<![A-Za-z])[A-J]{_CLOSE}{_JOINT}{_OPEN}$")
_DENIED = re.compile(
    r"\s*(?:项|选项)?\s*(?:中|里)?\s*(?:的?(?:说法|表述|描述|内容))?\s*(?:也|都|均|是|则|显然|明显|并)*\s*(?:不|错|误|有误|排除|无关|无法|没|未|非)"
    r"|\s*(?:is|are|was)\s+(?:not|wrong|incorrect|false)\b|\s*(?:isn't|is\s+clearly\s+wrong)"
)
# What may follow a letter without a space; any other Chinese character makes it a word: B超, A股, C语言.
_FOLLOWS = re.compile(
    r"项|选项|因|由于|理由|解析|是|的|正确|最|符合|对|而|吧|了|这|其|根据|从|才|即|更|合适|恰当|成立|说法"
)
_ARTICLE = re.compile(r"\s+(?!(?:because|since|as|is|for|and|so)\b)[a-z]")
_LABEL = re.compile(r"\s*[:.、)]\s*(?=\S)")

_LETTER = rf"{_OPEN}(?:选项|option\s+)?{_OPEN}([A-J])"
# fmt: off
_DENYING = (
    "不", "不能", "不应", "不要", "不会", "不可", "不该", "不宜", "不应该", "不可能", "别",
    "勿", "没", "没有", "未", "非", "排除", "如果", "若", "假如", "误", "错",
)
# fmt: on
_NOT = "".join(f"(?<!{w})" for w in _DENYING)
_ANSWER = (
    rf"(?:{_NOT}(?:答案|正确选项|正确的选项|正确的是|正确的一项)[\])】」*`\"']*\s*(?:应该|应当|应)?\s*(?:是|为|选择|选)?\s*:?\s*"
    r"|(?:^|\n)\s*答\s*:\s*"
    r"|\b(?:answer|correct\s+option|correct\s+choice|best\s+option|best\s+choice)\*{0,2}\s*(?:\bis\b\s*:?|:)\s*)"
)
_CHOICE = rf"(?:{_NOT}选(?:择|定)?\s*:?\s*|(?<!not )\b(?:choose|pick|select|go\s+with)\s+)"
_SO = r"(?:因此|所以|综上|故|由此可见|可见|总之|最终|最后|\btherefore\b|\bthus\b|\bhence\b|\bso\b|\bfinal\b|\bin\s+conclusion\b)"
# Each holds one letter; the letter's surroundings are checked by `_counts`.
_RANKS = (
    (
        re.compile(rf"\\boxed\s*{_LETTER}"),
        re.compile(rf"{_SO}[^\n。.!?;]{{0,12}}?(?:{_ANSWER}|{_CHOICE}){_LETTER}", re.IGNORECASE),
    ),
    (re.compile(rf"{_ANSWER}{_LETTER}", re.IGNORECASE),),
    (re.compile(rf"{_CHOICE}{_LETTER}", re.IGNORECASE),),
    (
        re.compile(
            rf"(?<![A-Za-z0-9])([A-J])(?={_CLOSE}\s*(?:项|选项)?\s*(?:的?(?:说法|表述|描述))?\s*(?:才|则)?(?:是|为)?(?:最)?(?:正确|对|符合|恰当|合适))"
        ),
        re.compile(rf"(?<![A-Za-z0-9])([A-J])(?={_CLOSE}\s+is\s+(?:the\s+)?(?:correct|right|best|answer))"),
    ),
)
_BRACKETED = (re.compile(r"[(\[【]\s*([A-J])\s*(?=[)\]】])"), re.compile(r"\*\*\s*([A-J])\s*(?=\*\*)"))
_LISTED = re.compile(r"^[ \t]*[(\[]?([A-J])[)\]]?\s*[:.、)][^\n]*$", re.MULTILINE)
#: How models begin the next question when they do not stop; `extract` ignores what follows.
NEXT_QUESTION = ("阅读下面的", "请阅读", "问题:", "Question:", "Passage:")
_ECHO = re.compile(r"\n\s*(?:" + "|".join(re.escape(n).replace(":", r"\s*:") for n in NEXT_QUESTION) + ")")
_MARKED_TEXT = re.compile(
    rf"(?:{_ANSWER}|(?:^|[,。:;\n]|应该?|应当|故|所以|因此|我|本题)选(?:择)?\s*:?\s*)([^\n]+)", re.IGNORECASE
)
_EDGES = " \t\r\n.,;:。,;:、!?\"'“”‘’「」『』()[]【】<>*`$"


def extract(completion: str, options: Sequence[str]) -> int | None:
    """Position of the option that `completion` names, or None where none or more than one is named."""
    text = normalize(completion)
    first = text.split("\n", 1)[0]
    alone = _alone(first)
    if alone is None and (_REASONED.match(text) or _REASONING.match(text)):
        text = _REASONED.sub("", text).strip()
        if _REASONING.match(text):
            return None
        first = text.split("\n", 1)[0]
        alone = _alone(first)
    if alone is not None:
        return alone if alone < len(options) else None
    match = re.match(rf"{_OPEN}[A-J]{_CLOSE}", text)
    if match and _JOINED.match(text, match.end()):
        # `A、C、D项错误，故选B` has a conclusion; nothing weaker undoes an answer of several letters.
        return _only(_marked(_RANKS[0], _without_echo(text), options), options)
    opening = _opening(text, options)
    if opening is not None:
        return opening if opening < len(options) else None
    text = _without_echo(text)
    for patterns in (*_RANKS, _BRACKETED):
        found = _marked(patterns, text, options)
        if found:
            return _only(found, options)
    texts = [_bare(o) for o in options]
    named = [_bare(text.strip().split("\n", 1)[0])]
    if not (named[0] and texts.count(named[0]) == 1):
        named = [_bare(m[1]) for m in _MARKED_TEXT.finditer(text)]
    return _only({texts.index(n) for n in named if n and texts.count(n) == 1}, options)


def settled(completion: str, options: Sequence[str]) -> bool:
    """Whether more text cannot change `extract`: the first line is over, and is a letter alone."""
    first, newline, _ = _fold(completion).lstrip().partition("\n")
    return bool(newline) and _alone(first) is not None


def first_letter_2023(completion: str) -> int | None:
    """The 2023 code's reading: the first A, B, C or D anywhere, also inside a word; None without one.

    Kept to reproduce published numbers, not to score: it takes the A of `DNA` and ignores how many options there are.
    """
    match = re.search(r"[ABCD]", completion)
    return "ABCD".index(match[0]) if match else None


def normalize(text: str) -> str:
    r"""NFKC with circled numbers as bracketed letters, simplified marks and without `\text{}`, stripped."""
    return _fold(text).strip()


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text.translate(_CIRCLED)).translate(_SIMPLIFIED)
    return _LATEX.sub(r"\1", folded)


def _bare(text: str) -> str:
    return normalize(text).strip(_EDGES)


def _only(found: set[int], options: Sequence[str]) -> int | None:
    if len(found) != 1:
        return None
    position = found.pop()
    return position if position < len(options) else None


def _alone(line: str) -> int | None:
    match = _ALONE.fullmatch(line)
    return LETTERS.index(match[1].upper()) if match else None


def _marked(patterns: Sequence[re.Pattern[str]], text: str, options: Sequence[str]) -> set[int]:
    found = set()
    for match in (m for pattern in patterns for m in pattern.finditer(text)):
        position = LETTERS.index(match[1].upper())
        joined = _JOINED_BEFORE.search(text, 0, match.start(1))
        if not joined and _counts(text, match.end(1), match[1], position, options):
            found.add(position)
    return found


def _counts(text: str, end: int, letter: str, position: int, options: Sequence[str]) -> bool:
    """Whether the letter before `end` stands for an option: no word, no article, not joined, denied or contradicted."""
    if re.match(r"[A-Za-z0-9]", text[end : end + 1]):
        return False
    if (letter in "AI" or letter.islower()) and _ARTICLE.match(text, end):
        return False
    closed = re.compile(_CLOSE).match(text, end)
    end = closed.end() if closed else end
    if _JOINED.match(text, end) or _DENIED.match(text, end):
        return False
    own = _bare(options[position]) if position < len(options) else ""
    rest = text[end:].split("\n", 1)[0]
    if re.match(r"[\u3400-\u9fff]", rest) and not _FOLLOWS.match(rest):
        return bool(own) and rest.startswith(own)
    label = _LABEL.match(rest)
    if not label:
        return _bare(rest) not in {_bare(o) for o in options} - {own, ""}
    said = _bare(rest[label.end() :])
    return not said or _agrees(said, own) or not any(_agrees(said, _bare(o)) for o in options)


def _opening(text: str, options: Sequence[str]) -> int | None:
    """Position of the letter that opens the text on its own; may lie beyond the options."""
    match = re.match(rf"{_OPEN}([A-J]){_CLOSE}", text)
    if not match or _is_list(text):
        return None
    position = LETTERS.index(match[1])
    rest = text[match.end() :]
    if not _counts(text, match.end(1), match[1], position, options):
        return None
    own = _bare(options[position]) if position < len(options) else ""
    if own and _bare(rest.split("\n", 1)[0]).startswith(own) and not re.match(r"[A-Za-z]", rest):
        return position
    if not re.match(
        r"\s*$|\s*\n|\s*[.,;:。、!?)\]】]|\s*(?:项|选项)\s*(?:$|[\n.,;:。、])|\s+(?:because|since)\b", rest
    ):
        return None
    label = _LABEL.match(rest)
    said = _bare(rest[label.end() :].split("\n", 1)[0]) if label else ""
    # `A. Smith` is a name.
    return None if label and label[0].strip() == "." and said[:1].isascii() and not _agrees(said, own) else position


def _agrees(said: str, option: str) -> bool:
    # Cut completions may hold only the beginning of the option.
    return bool(said) and bool(option) and (said.startswith(option) or option.startswith(said))


def _is_list(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()][:2]
    letters = [m[1] for line in lines if (m := _LISTED.match(line))]
    if letters in (["A", "B"], ["B", "C"], ["C", "D"], ["D", "E"]):
        return True
    # The same in one line: A: .. B: ..
    inside = re.findall(r"(?<![A-Za-z])([A-J])\s*[:.、)]", lines[0]) if lines else []
    return len(inside) > 1 and inside[0] != inside[1]


def _without_echo(text: str) -> str:
    echo = _ECHO.search(text)
    if echo:
        text = text[: echo.start()]
    if len({m[1] for m in _LISTED.finditer(text)}) > 1:
        text = _LISTED.sub("", text)
    return text

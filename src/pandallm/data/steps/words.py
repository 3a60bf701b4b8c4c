"""Characters by class, and what a word, a line and the end of a sentence are in Chinese text.

Words are counted without a dictionary: a run of letters and digits of a script that puts blanks between words is one
word, and 1.8 Chinese characters are one (jieba finds 1.7 to 2.2 in our kinds of text). So the thresholds of English
papers, which count words, mean the same amount of Chinese text.
"""

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

CHARACTERS_PER_WORD = 1.8

SPACE, HAN, KANA, LATIN, LETTER, DIGIT, MARK, OTHER = range(8)
#: Classes of which each character stands for itself, and those that make words in runs.
_IN_RUNS = np.array([False, False, False, True, True, True, True, False])

#: What ends a sentence. Closing quotes and brackets may follow.
SENTENCE_ENDS = "。！？!?.…"
CLOSERS = "”’」』）》】\"')]"

_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000))
_KANA = ((0x3041, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0))


#: Beyond this code point Han alone is told apart.
_CHARTED = 0x20000


@cache
def class_table() -> NDArray[np.uint8]:
    """(0x110000,): the class of each code point."""
    table = np.full(0x110000, OTHER, np.uint8)
    for point in range(_CHARTED):
        character = chr(point)
        if character.isspace():
            table[point] = SPACE
        elif character.isalnum():
            table[point] = DIGIT if character.isdecimal() else LETTER
        elif character == "_" or unicodedata.category(character)[0] == "M":
            table[point] = MARK
    for first, last in (("A", "Z"), ("a", "z")):
        table[ord(first) : ord(last) + 1] = LATIN
    for ranges, name in ((_HAN, HAN), (_KANA, KANA)):
        for start, stop in ranges:
            table[start:stop] = name
    return table


def code_points(text: str) -> NDArray[np.uint32]:
    """(characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Shape:
    """A text as arrays. points: (characters,) code points. classes: (characters,)."""

    __slots__ = ("_bytes", "_runs", "classes", "points")

    def __init__(self, text: str) -> None:
        self.points = code_points(text)
        self.classes: NDArray[np.uint8] = class_table().take(self.points)
        self._bytes = self.classes.tobytes()
        self._runs: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None

    def count(self, name: int) -> int:
        """Characters of a class."""
        return self._bytes.count(name)  # a third of the time of numpy's count on texts of this length

    @property
    def letters(self) -> int:
        """Letters of any script; a Chinese character is one."""
        return self.count(HAN) + self.count(KANA) + self.count(LATIN) + self.count(LETTER)

    @property
    def ideographs(self) -> int:
        """Characters of the scripts that put no blanks between words."""
        return self.count(HAN) + self.count(KANA)

    @property
    def runs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Starts and stops of the words in scripts with blanks, and of numbers."""
        if self._runs is None:
            inside = np.zeros(len(self.classes) + 2, np.int8)
            inside[1:-1] = _IN_RUNS[self.classes]
            edges = inside[1:] - inside[:-1]
            self._runs = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        return self._runs

    @property
    def words(self) -> float:
        """Words: runs, and 1.8 ideographs each."""
        return len(self.runs[0]) + self.ideographs / CHARACTERS_PER_WORD

    def runs_with_letters(self) -> int:
        """How many of the runs hold a letter."""
        starts, stops = self.runs
        letters = np.concatenate([[0], np.cumsum((self.classes == LATIN) | (self.classes == LETTER))])
        return int(np.count_nonzero(letters[stops] > letters[starts]))


def words_by_line(shape: Shape) -> list[float]:
    """The words of each line of a text, as `text.split("\\n")` cuts it."""
    breaks = np.flatnonzero(shape.points == 10)
    ideographs = np.concatenate([[0], np.cumsum((shape.classes == HAN) | (shape.classes == KANA))])
    edges = np.concatenate([[0], breaks, [len(shape.points)]])
    runs = np.diff(np.searchsorted(shape.runs[0], edges))
    words: list[float] = (runs + np.diff(ideographs[edges]) / CHARACTERS_PER_WORD).tolist()
    return words


def lines_of(text: str) -> list[str]:
    """The lines that hold something, without blanks round them."""
    return [line for raw in text.split("\n") if (line := raw.strip())]


_ENDED_WITHIN = re.compile("[。！？]|(?<=[\u4e00-\u9fff])[.!?](?=[\u4e00-\u9fff])")


def is_running_text(line: str) -> bool:
    """Whether a line ends as a sentence does, or a Chinese sentence ends within it.

    Chinese corpora often hold a whole article in one line, cut off at its end or without its last full stop.
    """
    return ends_sentence(line) or _ENDED_WITHIN.search(line) is not None


def ends_sentence(line: str) -> bool:
    """Whether a line (without blanks at its end) ends as a sentence does; `...` and a single `…` do not.

    Chinese writes its own marks, and the ellipsis that ends a sentence as `……`; a single one cuts a text off.
    """
    bare = line.rstrip(CLOSERS)
    if not bare:
        return False
    if bare.endswith(("...", "…")):
        return bare.endswith("……")
    return bare[-1] in SENTENCE_ENDS


def repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts stand there before, and their characters."""
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        else:
            seen.add(part)
    return number, characters

"""Text that repeats itself."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.clean_spec import RepetitionStep
from pandallm.data.steps import run_steps
from pandallm.data.steps.repetition import _has_frequent, _repeated_characters, _Units
from pandallm.data.steps.words import Shape
from pandallm.data.types import Turn

NONE = {"lines": None, "line_characters": None, "paragraphs": None, "paragraph_characters": None}
NO_WORDS = {"ngrams": {}, "duplicate_ngrams": {}}


def reason(text: str, **changes: object) -> str | None:
    return run_steps((Turn(text, True),), [RepetitionStep.model_validate(changes)])[1]


def prose(seed: int, length: int) -> str:
    rng = random.Random(seed)
    return "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(length))


def test_words_that_come_again() -> None:
    assert reason("点击这里了" * 3 + prose(1, 30)) == "repetition"
    assert reason("点击这里了" * 2 + prose(1, 30)) is None
    assert reason("呵" * 4) is None
    assert reason("呵" * 40) == "repetition"
    assert reason(prose(2, 600)) is None
    assert reason("click here now " * 4 + "and read the rest of it") == "repetition"
    assert reason("。" * 50) == "repetition"


def test_a_long_stretch_that_comes_twice() -> None:
    stretch = prose(3, 40)
    assert reason(stretch + prose(4, 100) + stretch) == "repetition"
    assert reason(stretch + prose(4, 700) + stretch) is None


def test_lines_and_paragraphs() -> None:
    lines = [prose(i, 8) for i in range(9)]
    assert reason("\n".join([*lines[:6], *lines[:3]]), **NO_WORDS) == "repetition_lines"
    assert reason("\n".join([*lines, *lines[:3]]), **NO_WORDS, line_characters=None) is None
    assert reason("\n".join([*lines, prose(9, 60), prose(9, 60)]), **NO_WORDS) == "repetition_lines"
    assert reason("\n\n".join([*lines[:4], *lines[:2]]), **NO_WORDS) == "repetition_paragraphs"
    assert reason("\n\n".join([*lines[:4], *lines[:2]]), **NO_WORDS, **NONE) is None


def test_five_characters() -> None:
    assert reason("abcde" * 3 + prose(1, 40), max_share=0.2, **NO_WORDS) == "repetition"
    assert reason("abcde" * 3 + prose(1, 70), max_share=0.2, **NO_WORDS) is None


def test_only_trained_turns_count() -> None:
    question = prose(5, 20)
    turns = (Turn(question + "\n", False), Turn(question + prose(6, 10), True))
    assert run_steps(turns, [RepetitionStep()])[1] is None
    assert run_steps((Turn(question + "\n" + question + prose(6, 10), True),), [RepetitionStep()])[1] == "repetition"


def _grams(units: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]


def _split(text: str) -> list[str]:
    import re

    return re.findall(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]", text)


@given(st.text(st.sampled_from("天地人ab1 ，"), max_size=60), st.integers(1, 4))
@settings(max_examples=200)
def test_repeated_characters_as_counted_by_hand(text: str, n: int) -> None:
    units = _split(text)
    covered: set[int] = set()
    seen: set[tuple[str, ...]] = set()
    for i, gram in enumerate(_grams(units, n)):
        if gram in seen:
            covered |= set(range(i, i + n))
        seen.add(gram)
    made = _Units(Shape(text))
    assert made.lengths.tolist() == [len(u) for u in units]
    if len(units) >= n:
        assert _repeated_characters(made, n) == sum(len(units[i]) for i in covered)


@given(st.text(st.sampled_from("天地ab ，"), max_size=50), st.floats(0.05, 0.9))
@settings(max_examples=200)
def test_most_frequent_as_counted_by_hand(text: str, share: float) -> None:
    units = _split(text)

    def apart(gram: tuple[str, ...]) -> int:
        count = free = 0
        for i, other in enumerate(_grams(units, len(gram))):
            if other == gram and i >= free:
                count, free = count + 1, i + len(gram)
        return count

    total = sum(map(len, units))
    wanted = any(
        (count := apart(gram)) >= 3 and count * sum(map(len, gram)) > share * total
        for n in (2, 3, 4)
        if 3 * n <= len(units)
        for gram in set(_grams(units, n))
    )
    assert _has_frequent(_Units(Shape(text)), [(n, share) for n in (2, 3, 4)]) == wanted


def test_hashes_of_words_depend_on_the_order_of_their_letters() -> None:
    units = _Units(Shape("listen silent enlist listen"))
    assert units.hashes[0] == units.hashes[3]
    assert len(np.unique(units.hashes)) == 3


@pytest.mark.parametrize("text", ["", " \n ", "。", "a"])
def test_next_to_nothing_repeats_nothing(text: str) -> None:
    assert reason(text) in (None, "empty")

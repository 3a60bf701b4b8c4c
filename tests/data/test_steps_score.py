"""Quality scores."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.clean_spec import ScoreStep
from pandallm.data.steps import check_steps, make_steps, score, step_versions
from pandallm.data.steps.score import heuristic
from pandallm.data.types import Turn
from pandallm.errors import BadInput, PandaError

GOOD = (
    "今天的天气很好，我们一起去公园里散步。路边的花开了，有红的，也有白的，大家都很高兴！"
    "公园中间有一个湖，湖上的小桥是去年才修好的，站在桥上可以看到远处的山。你也想来吗？"
)


def by_length() -> Callable[[str], float]:
    """A plug-in: full quality from ten characters on."""
    return lambda text: min(1.0, len(text) / 10)


def broken() -> Callable[[str], float]:
    """A plug-in that breaks its promise."""
    return lambda text: 7.0


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = EntryPoints(
        EntryPoint(name, f"{__name__}:{function}", score.GROUP)
        for name, function in (("length", "by_length"), ("broken", "broken"), ("gone", "gone"))
    )
    monkeypatch.setattr(score, "entry_points", lambda group: entries.select(group=group))


@given(st.text())
def test_heuristic_is_a_share(text: str) -> None:
    assert 0 <= heuristic(text) <= 1


def test_heuristic_puts_running_text_first() -> None:
    menu = "首页 | 新闻 | 体育 | 财经 | 汽车 | 房产 | 科技 | 娱乐 | 教育 | 健康\n" * 3
    numbers = "2018 12 33.5 41 22 0.7 88 91 100 3 5 7 9 11 13 15 17 19\n" * 3
    assert heuristic(GOOD) > 0.7 > 0.6 > heuristic(menu) > heuristic(numbers)
    assert heuristic(GOOD) > heuristic(GOOD[:20])
    assert heuristic(GOOD) > heuristic(GOOD[:20] * 5)
    assert heuristic("") == heuristic("…… 。") == 0


def test_the_step_writes_quality_and_cuts_below_its_least() -> None:
    run = make_steps([ScoreStep(min=0.5)], "x")
    kept, dropped = run((Turn(GOOD, True),), "zh"), run((Turn("1 2 3", True),), "zh")
    assert kept.reason is None
    assert kept.quality == heuristic(GOOD)
    assert dropped.reason == "low_score"
    assert dropped.quality is not None
    assert make_steps([ScoreStep()], "x")((Turn("1 2 3", True),), "zh").reason is None


@pytest.mark.usefixtures("plug_ins")
def test_a_plug_in_scores() -> None:
    steps = [ScoreStep(scorer="length", min=0.3)]
    check_steps(steps, "x")
    run = make_steps(steps, "x")
    assert run((Turn("四个", False), Turn("字符", True)), None).quality == 0.4
    assert run((Turn("少", True),), None).reason == "low_score"
    assert step_versions(steps) == {"length": f"{__name__}:by_length"}


@pytest.mark.usefixtures("plug_ins")
def test_what_a_plug_in_must_not_do_is_told() -> None:
    with pytest.raises(PandaError, match=r"'broken' gave 7.0 to a text; it must be in \[0, 1\]"):
        make_steps([ScoreStep(scorer="broken")], "corpora.a")((Turn("a", True),), None)
    with pytest.raises(
        BadInput, match=r"corpora.a: scorer 'none' is not installed; choose among broken, gone, heuristic, length"
    ):
        check_steps([ScoreStep(scorer="none")], "corpora.a")
    with pytest.raises(BadInput, match=r"corpora.a: scorer 'gone' .*cannot be loaded: AttributeError"):
        make_steps([ScoreStep(scorer="gone")], "corpora.a")

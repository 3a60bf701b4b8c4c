"""Plain progress lines."""

import pytest

from pandallm import terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_by_the_speed_since_the_first_advance(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = terminal.LogProgress(every=0.0)
    with shown.task("train", 100, "steps") as task:
        clock[0] += 30  # loading
        task.advance(60)  # a stage that goes on jumps to where it stood
        clock[0] += 10
        task.advance(5, "loss 2.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["train: 60%", "train: 65%, 70 s left, loss 2.5"]

"""Numbers of steps: metrics.jsonl, the note, what goes into a checkpoint."""

import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pandallm.data.packs import Packs
from pandallm.errors import PandaError
from pandallm.train.groups import group_packs
from pandallm.train.hooks import Tracking
from pandallm.train.step import StepNumbers
from pandallm.train.watch import STEPS_PER_READ, Watch
from tests.train.test_groups import with_languages
from tests.train.tiny import metrics


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    """Groups: even/en, even/zh, odd/zh."""
    return group_packs(with_languages(tmp_path / "packs", ["en", "zh", "zh", "zh", "zh", "zh"]))


def numbers(step: int, sums: list[float], trained: list[int], tokens: int = 20, ago: float = 1.0) -> StepNumbers:
    return StepNumbers(
        step,
        1e-3,
        torch.tensor(sums, dtype=torch.float64),
        torch.tensor(0.5),
        np.array(trained),
        tokens,
        (0, 3),
        time.monotonic() - ago,
    )


def test_losses_are_means_over_tokens_by_source_and_by_language(packs: Packs, tmp_path: Path) -> None:
    watch = Watch(tmp_path, packs, "train base", "cpu")
    watch.open(None)
    watch.add(numbers(1, [2.0, 6.0, 3.0], [1, 2, 3]), read=False)
    watch.add(numbers(2, [0.0, 0.0, 4.0], [0, 0, 2]), read=False)
    watch.close()
    first, second = metrics(tmp_path)
    assert first["loss"] == pytest.approx(11 / 6)
    assert first["loss_by_source"] == {"even": pytest.approx(8 / 3), "odd": pytest.approx(1.0)}
    assert first["loss_by_language"] == {"en": pytest.approx(2.0), "zh": pytest.approx(9 / 5)}
    assert second["loss_by_source"] == {"odd": 2.0}
    assert second["loss_by_language"] == {"zh": 2.0}
    assert first["trained_tokens"] == 6
    assert "mfu" not in first


def test_note_says_loss_both_rates_and_mfu_where_it_is_known(packs: Packs, tmp_path: Path) -> None:
    watch = Watch(tmp_path, packs, "train base", "cpu", used_flops=0.0045)
    watch.open(None)
    note = watch.add(numbers(1, [2.0, 6.0, 3.0], [1, 2, 3], tokens=1000, ago=10.0), read=False)
    watch.close()
    assert note == "loss 1.833, 100 tokens/s (1 trained), MFU 45%"
    line = metrics(tmp_path)[0]
    assert line["mfu"] == pytest.approx(0.45, abs=0.01)
    assert line["tokens_per_second"] == pytest.approx(100, rel=0.01)
    assert line["trained_tokens_per_second"] == pytest.approx(0.6, rel=0.01)


def test_a_gpu_is_left_alone_for_some_steps(packs: Packs, tmp_path: Path) -> None:
    watch = Watch(tmp_path, packs, "train base", "cuda")
    watch.open(None)
    notes = [watch.add(numbers(s, [1.0, 1.0, 1.0], [1, 1, 1]), read=False) for s in range(1, STEPS_PER_READ + 1)]
    assert notes[:-1] == [""] * (STEPS_PER_READ - 1)
    assert notes[-1].startswith("loss 1.000")
    assert watch.add(numbers(17, [2.0, 2.0, 2.0], [1, 1, 1]), read=True).startswith("loss 2.000")
    watch.close()
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 18))


def test_going_on_cuts_the_lines_after_the_checkpoint(packs: Packs, tmp_path: Path) -> None:
    watch = Watch(tmp_path, packs, "train base", "cpu")
    watch.open(None)
    watch.add(numbers(1, [1.0, 1.0, 1.0], [1, 1, 1]), read=False)
    state = watch.state()
    watch.add(numbers(2, [9.0, 9.0, 9.0], [1, 1, 1]), read=False)
    watch.close()
    again = Watch(tmp_path, packs, "train base", "cpu")
    again.open({**state, "step": 1})
    assert again.state()["metrics_bytes"] == state["metrics_bytes"]
    again.add(numbers(2, [2.0, 2.0, 2.0], [1, 1, 1]), read=True)
    again.close()
    assert [line["loss"] for line in metrics(tmp_path)] == [1.0, 2.0]
    assert again.trained_tokens == 6
    assert again.tokens == 40
    assert again.final_loss == 2.0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    module: Any = types.ModuleType("watch_test_hook")
    module.seen = []
    module.log = lambda stage, line: module.seen.append((stage, line))
    monkeypatch.setitem(sys.modules, "watch_test_hook", module)
    return module.seen


def test_hooks_get_the_lines_of_the_file(packs: Packs, tmp_path: Path, seen: list[Any]) -> None:
    watch = Watch(
        tmp_path, packs, "train base", "cpu", tracking=Tracking(("watch_test_hook:log",), "p", tmp_path / "out")
    )
    watch.open(None)
    watch.add(numbers(1, [1.0, 1.0, 1.0], [1, 1, 1]), read=True)
    watch.close()
    assert seen == [("train base", line) for line in metrics(tmp_path)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_names_the_examples(packs: Packs, tmp_path: Path, bad: float) -> None:
    watch = Watch(tmp_path, packs, "train base", "cpu")
    watch.open(None)
    with pytest.raises(PandaError, match=r"not finite at step 1 \(examples example-0, example-3; all in"):
        watch.add(numbers(1, [1.0, bad, 1.0], [1, 1, 1]), read=False)
    watch.close()
    assert (tmp_path / "logs" / "not_finite.json").is_file()

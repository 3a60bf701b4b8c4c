"""Memory given back after a stage; what is said where it runs out is tested in test_loop.py and test_launch.py."""

import platform
from collections.abc import Callable
from typing import Any

import pytest

from pandallm.pipeline.plan.probe import resident_gib
from pandallm.train import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory that can be handed back")
def test_freed_memory_goes_back_to_the_system() -> None:
    before = resident_gib()
    held = [bytes([i % 251]) * 60_000 for i in range(5000)]  # below the size that gets a mapping of its own
    kept = held[::50]  # holes between what stays
    full = resident_gib()
    del held
    memory.give_back()
    assert full - before > 0.25
    assert resident_gib() < before + 0.5 * (full - before)
    assert len(kept) == 100


def test_a_stage_gives_back_when_its_model_is_gone(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    from pandallm.train.loop import _Stage

    alive = []
    monkeypatch.setattr(memory, "give_back", lambda: alive.append(any(type(o) is _Stage for o in gc.get_objects())))
    stage()
    assert alive == [False]

"""A tiny base, packs of invented examples, and a short stage on them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tests.train.tiny import first_fit, invented_examples, make_base, write_packs


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    examples = invented_examples(120)
    rows = first_fit(examples, 64)
    return write_packs(tmp_path_factory.mktemp("packs") / "packs", rows[:20], examples, batch_sequences=2, epochs=2)


@pytest.fixture
def stage(base: Path, packs: Path, tmp_path: Path) -> Callable[..., Any]:
    """`stage(folder name, **arguments)`: train_stage on the tiny base; `spec=` holds settings to change."""
    from tiny import tiny_spec

    from pandallm.train.loop import train_stage

    def run(name: str = "work", spec: dict[str, Any] | None = None, **arguments: Any) -> Any:
        given = {"start": base, "packs": packs, "seed": 1, "device": "cpu", "threads": 1} | arguments
        start, where = given.pop("start"), given.pop("packs")
        return train_stage(start, where, tiny_spec(**(spec or {})), tmp_path / name, **given)

    return run

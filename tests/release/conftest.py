"""A base, a target and their delta, made once."""

from pathlib import Path

import pytest

from tests.release.release_helpers import save_llama


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "target", drift=1e-3)


@pytest.fixture(scope="session")
def delta(base: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pandallm.release.delta import make_delta

    out = tmp_path_factory.mktemp("deltas") / "delta"
    make_delta(base, target, out)
    return out

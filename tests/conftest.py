"""Shared fixtures. One thread: results must not depend on how many cores a machine has, and workers of xdist must not fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real text (corpora/, instruct/, eval/); tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("PANDA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (folder / "corpora").is_dir():
        pytest.skip("real text is not here; name its folder with PANDA_DATA")
    return folder

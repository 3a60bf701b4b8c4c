"""A microworld small enough for a test: the same recipe, a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "world.scored_people=12",
    "world.english_people=12",
    "world.question_people=12",
    "world.instruction_people=12",
    "base.scratch.architecture.hidden_size=32",
    "base.scratch.architecture.layers=2",
    "base.scratch.architecture.intermediate_size=64",
    "base.scratch.train.steps=8",
    "stages.pretrain.steps=8",
    "stages.instruct.steps=6",
    "runtime.threads=1",
    "runtime.workers=1",
)


def panda(*arguments: str, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user would run it, in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", "pandallm", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(working folder, the JSON object) of one small `panda run seed=7 --json`."""
    folder = tmp_path_factory.mktemp("small")
    done = panda("run", "seed=7", *SMALL, "--json", folder=folder)
    return folder, json.loads(done.stdout)

"""The commands of docs/adapters.md, on a small microworld."""

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.end_to_end.conftest import SMALL, panda
from tests.end_to_end.test_docs import ROOT, shown_commands


def test_the_page_s_commands(small_run: tuple[Path, dict[str, Any]]) -> None:
    """In the folder of the small run: only the adapters are trained."""
    folder, _ = small_run
    run, export = (shlex.split(line)[1:] for line in shown_commands(ROOT / "docs" / "adapters.md"))
    done = panda(*run, "seed=7", *SMALL, "evaluate=null", "release=null", "--json", folder=folder)
    trained = folder / "runs" / "adapted-seed7"
    assert json.loads(done.stdout)["run"] == str(trained)
    told = panda(*(word.replace("seed42", "seed7") for word in export), "--json", folder=folder)
    facts = json.loads(told.stdout)
    assert Path(facts["base"]).resolve() == (trained / "models" / "pretrain").resolve()
    want = load_file(trained / "models" / "instruct" / "model.safetensors")
    for name, tensor in load_file(folder / "merged" / "model.safetensors").items():
        torch.testing.assert_close(tensor, want[name], rtol=1e-5, atol=1e-6)

"""A small microworld, released and opened as a reader would: verbs alone, then plain transformers."""

import json
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import panda


def test_a_released_delta_comes_back_and_opens_in_plain_transformers(
    small_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = small_run[0] / "runs" / "microworld-seed7"
    target = run / "models" / "instruct"
    facts = json.loads(
        panda("release", str(run), "--out", "delta", "--ship", "delta", "--json", folder=tmp_path).stdout
    )
    assert facts["ship"] == "delta"
    panda("verify", "delta", "--base", str(run / "models" / "base"), folder=tmp_path)
    panda("delta", "apply", str(run / "models" / "base"), "delta", "tuned", folder=tmp_path)
    panda("release", str(run), "--out", "weights", folder=tmp_path)
    panda("export", str(target), "copy", folder=tmp_path)
    ids = AutoTokenizer.from_pretrained(target)("周展的家在哪里？", return_tensors="pt").input_ids
    with torch.no_grad():
        want = AutoModelForCausalLM.from_pretrained(target)(ids).logits
        for name in ("tuned", "weights", "copy"):
            assert torch.equal(
                AutoTokenizer.from_pretrained(tmp_path / name)("周展的家在哪里？", return_tensors="pt").input_ids, ids
            )
            assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits, want), name
    (tmp_path / "weights" / "README.md").write_text("# Better than it is\n")
    failed = panda("verify", "weights", folder=tmp_path, check=False)
    assert failed.returncode == 1
    assert "README.md is not what SHA256SUMS says" in failed.stderr


def test_the_world_s_data_is_released_and_nothing_is_left_out(
    small_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = small_run[0] / "runs" / "microworld-seed7"
    facts = json.loads(panda("release", str(run), "--data", "--out", "data", "--json", folder=tmp_path).stdout)
    assert facts["left_out"] == {}
    assert set(facts["published"]) == {"english", "chinese", "coig"}
    panda("verify", "data", folder=tmp_path)

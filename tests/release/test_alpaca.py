"""Alpaca's checksum, and what it cannot tell."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from pandallm.release.alpaca import WeightSum, add_up, values_sum, weight_sum
from tests.release.release_helpers import save_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("alpaca") / "m", drift=1e-3, tie_word_embeddings=False)


def state_sum(folder: Path) -> float:
    """`sum(state_dict[key].sum() for key in state_dict)` in float32, as the script has it."""
    import torch
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return float(sum(tensor.sum() for tensor in state.values()))


def changed(folder: Path, out: Path, edit: Any) -> Path:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, out)
    state = load_file(out / "model.safetensors")
    edit(state)
    save_file(state, out / "model.safetensors")
    return out


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_sum_is_the_scripts(tmp_path: Path, tied: bool, dtype: str) -> None:
    folder = save_llama(tmp_path / "m", dtype=dtype, tie_word_embeddings=tied)
    total = weight_sum(folder)
    assert total.exact == pytest.approx(state_sum(folder), abs=1e-4)
    assert total.float32 == pytest.approx(total.exact, abs=1e-4)
    assert total.verdict(state_sum(folder)) == "equal"
    assert total.verdict(total.exact + 1) == "different"
    assert total.tensors == 21


def test_what_the_sum_cannot_tell(model: Path, tmp_path: Path) -> None:
    published = weight_sum(model).exact

    def swap(state: Any) -> None:
        state["lm_head.weight"] = state["lm_head.weight"].flip(0)

    def exchange(state: Any) -> None:
        a, b = (f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1))
        state[a], state[b] = state[b], state[a]

    def nudge(state: Any) -> None:
        state["model.norm.weight"][0] += 1e-3

    def break_one(state: Any) -> None:
        state["model.norm.weight"][0] += 1

    for i, edit in enumerate((swap, exchange, nudge)):
        assert weight_sum(changed(model, tmp_path / str(i), edit)).verdict(published) == "equal"
    assert weight_sum(changed(model, tmp_path / "one", break_one)).verdict(published) == "different"


def test_rotary_buffers_are_told_apart() -> None:
    parts = [("model.norm.weight", 5.0), ("model.layers.0.self_attn.rotary_emb.inv_freq", 7.5)]
    total = add_up(parts)
    assert (total.exact, total.rotary) == (12.5, 7.5)
    assert total.verdict(12.5) == "equal"
    assert total.verdict(5.0) == "equal without rotary buffers"


def test_rounding_of_float32_sums_is_allowed_for() -> None:
    total = WeightSum(exact=50637.20, float32=50637.21, rounding=0.05, rotary=0.0, tensors=291)
    assert total.verdict(50637.1836) == "equal within rounding"
    assert total.verdict(50637.0) == "different"
    random = Random(0)
    big = add_up((f"layers.{i}.w", random.uniform(0, 348)) for i in range(291))
    assert 0.05 < big.rounding < 0.06
    assert abs(big.float32 - big.exact) < big.rounding


def test_integers_count_nothing() -> None:
    assert values_sum(b"\x01\x02", "U8") == 0.0
    assert add_up([]).exact == 0.0

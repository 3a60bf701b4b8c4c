"""FLOPs and the table of devices."""

from pathlib import Path

import pytest
import torch

from pandallm.data.packs import Packs
from pandallm.model.folder import load_model
from pandallm.train.groups import group_packs
from pandallm.train.mfu import device_flops, flops_per_token, peak_of


@pytest.mark.parametrize(
    ("name", "gigabytes", "bfloat16", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 85, True, 312),
        ("NVIDIA A100-PCIE-40GB", 42, False, 19.5),
        ("NVIDIA H100 80GB HBM3", 85, True, 989),
        ("NVIDIA H200", 150, False, 67),
        ("NVIDIA GeForce RTX 4090", 25, True, 165),
        ("NVIDIA L40S", 48, True, 362),
        ("NVIDIA L4", 24, True, None),
        ("NVIDIA A10", 24, True, None),
        ("Tesla V100", 32, True, None),
    ],
)
def test_peak_of_a_device_by_its_drivers_name(name: str, gigabytes: float, bfloat16: bool, tflops: float) -> None:
    found = device_flops(name, gigabytes * 1e9, bfloat16)
    assert found == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_a_cpu_has_no_peak() -> None:
    assert peak_of(torch.device("cpu"), True) is None


def test_flops_of_a_token_by_hand(base: Path, packs: Path) -> None:
    """The tiny base: width 32, 2 layers, 4 heads of 8, 2 of them for keys, MLP 48."""
    model, grouped = load_model(base), group_packs(Packs.open(packs))
    rows = model.get_input_embeddings().weight.shape[0]
    matrices = 2 * (32 * 8 * (2 * 4 + 2 * 2) + 3 * 32 * 48)
    forward = 2 * matrices + 2 * 2 * 32 * grouped.mean_context + 2 * rows * 32
    assert flops_per_token(model.config, grouped) == pytest.approx(3 * forward)


def test_the_head_costs_only_where_tokens_are_trained(base: Path, packs: Path) -> None:
    config, grouped = load_model(base).config, group_packs(Packs.open(packs))
    half = {**grouped.facts, "ledger": {"total": {"trained_exposures": 1, "exposures": 2}}}
    whole, less = flops_per_token(config, grouped), flops_per_token(config, _with(grouped, half))
    assert whole is not None
    assert less is not None
    assert whole - less == pytest.approx(3 * 2 * load_model(base).get_input_embeddings().weight.shape[0] * 32 / 2)


def _with(packs: object, facts: object) -> object:
    import dataclasses

    return dataclasses.replace(packs, facts=facts)  # type: ignore[type-var]


def test_an_unknown_family_has_no_flops(packs: Path) -> None:
    from transformers import GPT2Config

    assert flops_per_token(GPT2Config(), group_packs(Packs.open(packs))) is None

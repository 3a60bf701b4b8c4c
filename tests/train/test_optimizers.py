"""Optimizers by name: what each moves, and that all of them go on bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pandallm.train.optimizers as optimizers
from pandallm.errors import BadInput, Interrupted
from pandallm.model.folder import load_model
from pandallm.train.optimizers import check_optimizer, make_optimizer
from pandallm.train.spec import OptimizerSpec
from tests.train.tiny import AfterSteps, count_steps, metrics, weights

RATE = 3e-3


def spec(kind: str) -> OptimizerSpec:
    return OptimizerSpec(kind=kind, lr=RATE, warmup=2, weight_decay=0.01)


def test_unknown_ones_and_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"optimizer.kind: 'muom' is not known.*muon"):
        check_optimizer(spec("muom"))
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"adamw8bit needs the package bitsandbytes.*pandallm\[qlora\]"):
        check_optimizer(spec("adamw8bit"))
    check_optimizer(spec("muon"))


def test_one_of_ones_own(base: Path) -> None:
    optimizers.register("plain", lambda groups, given: torch.optim.SGD(groups, lr=given.lr))
    try:
        assert isinstance(make_optimizer(load_model(base), spec("plain")), torch.optim.SGD)
    finally:
        del optimizers._MAKERS["plain"]


def test_weight_decay_is_on_matrices_alone(base: Path) -> None:
    model = load_model(base)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = make_optimizer(model, spec("adamw"), {"lm_head.weight"}).param_groups
    without = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    assert without == {n for n in names.values() if "norm" in n} | {"lm_head.weight"}
    assert sorted(names.values()) == sorted(names[id(p)] for g in groups for p in g["params"])


def test_muon_moves_hidden_matrices_by_orthogonal_steps(base: Path) -> None:
    """Singular values of an update are about 1 (Jordan et al. 2024: within .5 and 1.5 or so) times .2 sqrt(larger side) lr."""
    model = load_model(base)
    optimizer = make_optimizer(model, OptimizerSpec(kind="muon", lr=RATE))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model(input_ids=torch.arange(60)[None], labels=torch.arange(60)[None]).loss.backward()
    optimizer.step()
    moments = {n: set(optimizer.state[p]) for n, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        if "proj" in name:
            assert moments[name] == {"momentum_buffer"}
            update = (before[name] - parameter.detach()) / (0.2 * max(parameter.shape) ** 0.5 * RATE)
            values = torch.linalg.svdvals(update)
            assert 0.5 < float(values.median()) < 1.5
            assert float(values.max()) < 1.6
        else:
            assert moments[name] == {"step", "exp_avg", "exp_avg_sq"}
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_moments_in_eight_bits(base: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = load_model(base)
    optimizer = make_optimizer(model, spec("adamw8bit"))
    model(input_ids=torch.arange(60)[None], labels=torch.arange(60)[None]).loss.backward()
    optimizer.step()
    state = optimizer.state[model.lm_head.weight]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    assert state["state1"].shape == model.lm_head.weight.shape


@pytest.mark.parametrize("kind", ["adamw8bit", "muon"])
def test_learns_and_resumes_bit_for_bit(
    stage: Callable[..., Any], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    settings = {"optimizer": spec(kind)}
    stage("straight", spec=settings)
    losses = [line["loss"] for line in metrics(tmp_path / "straight")]
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.3
    with pytest.raises(Interrupted):
        stage("halted", spec=settings, deadline=AfterSteps(count_steps(monkeypatch), 5))
    assert stage("halted", spec=settings)["resumed_from"] == [5]
    for name, tensor in weights(tmp_path / "straight").items():
        assert torch.equal(tensor, weights(tmp_path / "halted")[name]), name

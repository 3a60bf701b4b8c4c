from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pandallm.model import onednn

avx512 = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10")), reason="the processor has no AVX-512"
)


def small(**more: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **more,
    )
    model: Any = LlamaForCausalLM(config)
    return model.eval()


@avx512
@pytest.mark.parametrize("bias", [False, True])
def test_same_logits_as_plain_torch(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    monkeypatch.setattr(onednn, "MIN_WEIGHTS", 1)
    model = small(attention_bias=bias, mlp_bias=bias)
    if bias:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    ids = torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(ids).logits
        assert onednn.use_onednn(model) == 14
        assert isinstance(model.model.layers[0].mlp.up_proj, onednn.OneDnnLinear)
        found = model(ids).logits
    assert type(model.lm_head) is torch.nn.Linear
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("why", ["small", "bfloat16", "processor"])
def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(onednn, "MIN_WEIGHTS", 10**7 if why == "small" else 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2" if why == "processor" else "AVX512")
    model = small()
    if why == "bfloat16":
        model = model.to(torch.bfloat16)
    before = [type(m) for m in model.modules()]
    assert onednn.use_onednn(model) == 0
    assert [type(m) for m in model.modules()] == before


@avx512
def test_strided_input_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = torch.nn.Linear(16, 24)
    packed = onednn.OneDnnLinear(linear)
    x = torch.randn(5, 16, 7).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), linear(x))
        torch.testing.assert_close(packed(x[0, :1]), linear(x[0, :1]))


@avx512
@pytest.mark.parametrize("bias", [False, True])
def test_training_gives_the_gradients_of_plain_torch(bias: bool) -> None:
    model = small(attention_bias=bias, mlp_bias=bias)
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    ids = torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(1))
    layers, found = onednn.OneDnnLayers(model), []
    for install in (False, True):
        model.zero_grad()
        if install:
            layers.install()
        assert ("forward" in vars(model.model.layers[0].mlp.up_proj)) is install
        logits = model(ids).logits
        logits.square().sum().backward()
        layers.remove()
        found.append((logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    assert "model.layers.1.mlp.up_proj.weight" not in found[1][1]
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, atol=1e-5, rtol=1e-4, msg=name)
    assert not any("forward" in vars(m) for m in model.modules())


@avx512
def test_products_of_transposed_views() -> None:
    a, b = torch.randn(7, 16), torch.randn(5, 16)
    torch.testing.assert_close(onednn.product(a, b), a @ b.t())
    g = torch.randn(7, 5)
    torch.testing.assert_close(onednn.product(a.t(), g.t()), a.t() @ g)

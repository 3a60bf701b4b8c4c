"""What is trained: patterns, new rows, adapters and their merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pandallm.errors import BadInput, Interrupted
from pandallm.model.folder import load_model, save_model
from pandallm.train.layout import check_sharding
from pandallm.train.spec import LoraMethod, OptimizerSpec
from tests.train.tiny import AfterSteps, count_steps, metrics, tiny_spec, weights

LORA = LoraMethod(kind="lora", rank=4, alpha=8)
QLORA = LoraMethod(kind="qlora", rank=4, alpha=8)
FAST = OptimizerSpec(lr=2e-2, warmup=2, weight_decay=0.01)
IDS = torch.tensor([[5, 6, 7, 9, 30]])


def changed(base: Path, work: Path) -> set[str]:
    before = load_file(base / "model.safetensors")
    return {n for n, t in weights(work).items() if not torch.equal(t, before[n])}


def test_only_what_the_patterns_leave_moves(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    stage("mlp", spec={"trainable": ("model.layers.*.mlp.*",), "freeze": ("model.layers.0",)})
    assert changed(base, tmp_path / "mlp") == {f"model.layers.1.mlp.{n}_proj.weight" for n in ("gate", "up", "down")}
    stage("embeddings", spec={"trainable": ("embeddings",)})
    assert changed(base, tmp_path / "embeddings") == {"model.embed_tokens.weight", "lm_head.weight"}


def test_patterns_that_name_nothing_are_told(stage: Callable[..., Any]) -> None:
    with pytest.raises(
        BadInput, match=r"trainable: 'model.layer.\*.mlp.up_proj.weight' matches no parameter.*model.layers"
    ):
        stage(spec={"trainable": ("model.layer.*.mlp.up_proj.weight",)})
    with pytest.raises(BadInput, match="nothing to train"):
        stage(spec={"freeze": ("*",)})
    with pytest.raises(BadInput, match=r"base\.extend grew"):
        stage(spec={"trainable": ("new_rows",)})
    with pytest.raises(BadInput, match=r"method\.targets: 'q_prj' names no linear layer.*q_proj"):
        stage(spec={"method": LoraMethod(kind="lora", targets=("q_prj",))})


def test_adapters_without_peft_are_refused_before_the_run_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pandallm.train.method as method
    from pandallm.pipeline.run import Run
    from pandallm.recipe.load import load_recipe

    monkeypatch.setattr(method, "find_spec", lambda name: None)
    folders = [f"runtime.store={tmp_path / 'store'}", f"runtime.runs={tmp_path / 'runs'}"]
    run = Run(load_recipe("microworld", ["stages.instruct.method={kind: lora}", *folders]))
    with pytest.raises(BadInput, match=r"needs the package peft.*pandallm\[lora\]"):
        run.execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tied", [False, True])
def test_only_new_rows_move(stage: Callable[..., Any], base: Path, tmp_path: Path, tied: bool) -> None:
    from pandallm.model.folder import load_tokenizer

    model = load_model(base)
    model.config.pandallm_new_rows = [40, 60]
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    save_model(model, load_tokenizer(base), tmp_path / "grown")
    stage(start=tmp_path / "grown", spec={"trainable": ("new_rows",), "optimizer": FAST})
    assert changed(tmp_path / "grown", tmp_path / "work") == {"model.embed_tokens.weight"} | (
        set() if tied else {"lm_head.weight"}
    )
    before = load_file(tmp_path / "grown" / "model.safetensors")["model.embed_tokens.weight"]
    after = weights(tmp_path / "work")["model.embed_tokens.weight"]
    moved = (before != after).any(1).nonzero().flatten().tolist()
    assert moved
    assert set(moved) <= set(range(40, 60))


@pytest.mark.parametrize("embeddings", [False, True])
def test_the_model_is_the_base_with_its_adapter(
    stage: Callable[..., Any], base: Path, tmp_path: Path, embeddings: bool
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    method = LORA.model_copy(update={"train_embeddings": embeddings})
    stage(spec={"method": method, "optimizer": FAST, "gradient_checkpointing": True})
    losses = [line["loss"] for line in metrics(tmp_path / "work")]
    assert sum(losses[-4:]) < sum(losses[:4]), losses
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "work" / "model", attn_implementation="sdpa")
    start = AutoModelForCausalLM.from_pretrained(base)
    without = start(IDS).logits.detach()
    adapted = PeftModel.from_pretrained(start, str(tmp_path / "work" / "adapter"))
    torch.testing.assert_close(merged(IDS).logits, adapted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(without, merged(IDS).logits, atol=1e-2)
    assert set(weights(tmp_path / "work")) == set(load_file(base / "model.safetensors"))
    assert str(base) not in (tmp_path / "work" / "adapter" / "adapter_config.json").read_text()
    moved = changed(base, tmp_path / "work")
    assert ("lm_head.weight" in moved) == ("model.embed_tokens.weight" in moved) == embeddings


def test_adapters_on_four_bits(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    """The saved model is what training computed with: the base's weights after four bits, and the adapter on them."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    functional = bitsandbytes.functional
    stage(spec={"method": QLORA, "optimizer": FAST})
    losses = [line["loss"] for line in metrics(tmp_path / "work")]
    assert sum(losses[-4:]) < sum(losses[:4]), losses
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "work" / "model", attn_implementation="sdpa")
    assert merged.dtype == torch.float32
    rounded = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, layer in rounded.model.named_modules():
            if isinstance(layer, torch.nn.Linear):
                four, state = functional.quantize_4bit(layer.weight.data, quant_type="nf4", compress_statistics=True)
                layer.weight.copy_(functional.dequantize_4bit(four, state))
                assert not torch.equal(layer.weight, load_file(base / "model.safetensors")[f"model.{name}.weight"])
    adapted = PeftModel.from_pretrained(rounded, str(tmp_path / "work" / "adapter"))
    torch.testing.assert_close(merged(IDS).logits, adapted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert set(weights(tmp_path / "work")) == set(load_file(base / "model.safetensors"))
    assert "quantization_config" not in (tmp_path / "work" / "model" / "config.json").read_text()


def test_layers_without_an_adapter_are_in_four_bits_too(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    stage(spec={"method": QLORA.model_copy(update={"targets": ("q_proj",)})})
    assert len(changed(base, tmp_path / "work")) == 14


def test_four_bits_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandallm.train.method as method

    monkeypatch.setattr(method, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(BadInput, match=r"qlora needs the package bitsandbytes.*pandallm\[qlora\]"):
        method.check_method(tiny_spec(method=QLORA))
    method.check_method(tiny_spec(method=LORA))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": LoraMethod(kind="qlora")}, "qlora does not work with runtime.sharding: shard_all"),
        ({"optimizer": OptimizerSpec(lr=1, kind="muon")}, "muon needs whole matrices, runtime.sharding: shard_all"),
        ({"optimizer": OptimizerSpec(lr=1, kind="adamw8bit")}, "adamw8bit needs whole matrices"),
    ],
)
def test_what_cannot_be_cut_over_ranks_is_refused(changes: dict[str, Any], told: str) -> None:
    check_sharding(tiny_spec(**changes), "replicate")
    check_sharding(tiny_spec(method=LORA), "shard_all")
    with pytest.raises(BadInput, match=told):
        check_sharding(tiny_spec(**changes), "shard_all")


def test_adapters_go_where_the_patterns_leave_layers(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    method = LoraMethod(kind="lora", rank=2, targets=("q_proj", "v_proj"))
    stage(spec={"method": method, "freeze": ("model.layers.0",)})
    assert changed(base, tmp_path / "work") == {f"model.layers.1.self_attn.{n}_proj.weight" for n in "qv"}


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_adapters_resume_bit_for_bit(
    stage: Callable[..., Any], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    spec = {"method": LORA.model_copy(update={"kind": kind})}
    stage("straight", spec=spec)
    with pytest.raises(Interrupted):
        stage("halted", spec=spec, deadline=AfterSteps(count_steps(monkeypatch), 5))
    assert stage("halted", spec=spec)["resumed_from"] == [5]
    for name, tensor in weights(tmp_path / "straight").items():
        assert torch.equal(tensor, weights(tmp_path / "halted")[name]), name


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_adapters_in_bfloat16(stage: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    method = LORA.model_copy(update={"kind": kind})
    stage("full", spec={"method": method})
    stage("half", spec={"method": method, "dtype": "bfloat16"})
    full, half = (metrics(tmp_path / name)[-1] for name in ("full", "half"))
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["grad_norm"] == pytest.approx(full["grad_norm"], rel=0.2)

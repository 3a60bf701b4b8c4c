"""What training saves is what it computed with: in plain transformers, after every way of training; adapters merge to it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pandallm.errors import BadInput
from pandallm.model.folder import load_tokenizer
from pandallm.model.grow import grow_rows
from pandallm.release.export import export_model
from pandallm.store import Store, read_json, write_json
from pandallm.train.loop import train_stage
from pandallm.train.spec import LoraMethod, OptimizerSpec
from tests.train.tiny import first_fit, invented_examples, make_base, tiny_spec, write_packs

LORA = LoraMethod(kind="lora", rank=4, alpha=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    examples = invented_examples(40)
    rows = first_fit(examples, 64)[:8]
    return write_packs(tmp_path_factory.mktemp("packs") / "packs", rows, examples, batch_sequences=2)


def train(start: Path, packs: Path, work: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {"epochs": 1, "optimizer": OptimizerSpec(lr=2e-2, warmup=2)}
    train_stage(start, packs, tiny_spec(**settings | changes), work, seed=1, device="cpu", threads=1)
    return work


@pytest.fixture(scope="module")
def adapted(base: Path, packs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base, packs, tmp_path_factory.mktemp("adapted") / "work", method=LORA)


@pytest.mark.parametrize("way", ["full", "lora", "qlora", "bfloat16", "new rows"])
def test_every_way_of_training_exports_with_equal_logits(base: Path, packs: Path, tmp_path: Path, way: str) -> None:
    if way == "qlora":
        pytest.importorskip("bitsandbytes")
    ways: dict[str, dict[str, Any]] = {
        "full": {},
        "lora": {"method": LORA},
        "qlora": {"method": LORA.model_copy(update={"kind": "qlora"})},
        "bfloat16": {"dtype": "bfloat16"},
        "new rows": {"trainable": ("new_rows",)},
    }
    start = base
    if way == "new rows":
        start = tmp_path / "grown"
        grow_rows(base, start, 258, [(40, 41), (50, 51, 52)], pad_to_multiple=8)
        tokenizer = load_tokenizer(base)
        tokenizer.add_tokens(["alpha", "beta"])
        tokenizer.save_pretrained(start)
    train(start, packs, tmp_path / "work", **ways[way])
    facts = export_model(tmp_path / "work" / "model", tmp_path / "out")
    assert facts["same_bits"]
    assert facts["largest_logit_difference"] < (0.05 if way == "bfloat16" else 1e-5)
    if way == "new rows":
        assert len(load_tokenizer(tmp_path / "out")) == 260
        assert load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"].shape[0] >= 260


@pytest.mark.parametrize("embeddings", [False, True])
def test_an_adapter_merges_to_the_model_of_its_stage(base: Path, packs: Path, tmp_path: Path, embeddings: bool) -> None:
    work = train(base, packs, tmp_path / "work", method=LORA.model_copy(update={"train_embeddings": embeddings}))
    facts = export_model(work / "adapter", tmp_path / "out", base=str(base))
    assert facts["largest_logit_difference"] < 1e-4
    assert facts["dtype"] == "float32"
    assert not facts["same_bits"]
    want = load_file(work / "model" / "model.safetensors")
    have = load_file(tmp_path / "out" / "model.safetensors")
    assert set(have) == set(want)
    before = load_file(base / "model.safetensors")
    assert any(not torch.equal(t, before[n]) for n, t in have.items())
    for name, tensor in want.items():
        torch.testing.assert_close(have[name], tensor, rtol=1e-5, atol=1e-6)


def test_an_adapter_is_stored_as_asked_for(base: Path, adapted: Path, tmp_path: Path) -> None:
    facts = export_model(adapted / "adapter", tmp_path / "out", base=str(base), dtype="bfloat16")
    assert facts["dtype"] == "bfloat16"
    assert load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16


def test_the_store_knows_an_adapters_base(base: Path, adapted: Path, packs: Path, tmp_path: Path) -> None:
    import shutil

    store = Store(tmp_path / "store")
    with store.begin("import", 1, {}, {}) as work:
        shutil.copytree(base, work.folder / "model")
        start = work.commit()
    with store.begin("train", 1, {}, {"packs": "p", "start": start.digest}) as work:
        shutil.copytree(adapted / "adapter", work.folder / "adapter")
        stage = work.commit()
    facts = export_model(stage.path / "adapter", tmp_path / "out")
    assert facts["base"] == str(start.path / "model")
    export_model(adapted / "adapter", tmp_path / "named", base=str(base))
    merged = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "named")]
    assert merged[0] == merged[1]


def test_what_cannot_be_merged_is_told(base: Path, adapted: Path, tmp_path: Path) -> None:
    import shutil

    adapter = tmp_path / "adapter"
    shutil.copytree(adapted / "adapter", adapter)
    with pytest.raises(BadInput, match=r"does not say which model the adapter was trained on: name it with --base"):
        export_model(adapter, tmp_path / "out")
    with pytest.raises(BadInput, match="--base is for adapters"):
        export_model(base, tmp_path / "out", base=str(base))
    config = read_json(adapter / "adapter_config.json")
    write_json(adapter / "adapter_config.json", config | {"peft_type": "IA3"})
    with pytest.raises(BadInput, match="peft_type IA3 is not supported"):
        export_model(adapter, tmp_path / "out", base=str(base))
    write_json(adapter / "adapter_config.json", config | {"r": 8})
    with pytest.raises(BadInput, match=r"does not fit the model .*size mismatch for model.layers"):
        export_model(adapter, tmp_path / "out", base=str(base))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BadInput, match="pickled weights are not read"):
        export_model(adapter, tmp_path / "out", base=str(base))
    assert not (tmp_path / "out").exists()

"""Model folders: what is refused, and that what is saved is an ordinary model."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pandallm.errors import BadInput
from pandallm.model.folder import (
    check_model_folder,
    import_folder,
    load_model,
    load_tokenizer,
    resolve_device,
    save_model,
)


def broken(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "broken"))


def test_plain_transformers_reads_it_with_equal_logits(model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load_model(model_folder)
    save_model(model, load_tokenizer(model_folder), tmp_path / "saved")
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="sdpa")
    assert torch.equal(plain(ids).logits, model(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").decode([0]) == "<eos>"
    assert "pandallm_packed" not in (tmp_path / "saved" / "config.json").read_text()
    assert not list(tmp_path.glob(".*"))


def test_generation_works_with_packed_attention_selected(model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([[5, 6, 7], [1, 1, 9]])
    mask = torch.tensor([[1, 1, 1], [0, 0, 1]])
    plain = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="sdpa")
    arguments = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(load_model(model_folder).generate(ids, **arguments), plain.generate(ids, **arguments))


def test_sampling_settings_without_sampling_do_not_stop_saving(model_folder: Path, tmp_path: Path) -> None:
    model = load_model(model_folder)
    model.generation_config.temperature = 0.7
    save_model(model, None, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text())["do_sample"] is True


def test_import_local_folder(model_folder: Path, tmp_path: Path) -> None:
    source = broken(model_folder, tmp_path)
    (source / "modeling_evil.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    facts = import_folder(str(source), None, tmp_path / "out")
    assert facts == {"source": str(source), "revision": None}
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "modeling_evil.py" not in names
    assert "pytorch_model.bin" not in names
    assert os.path.samefile(source / "model.safetensors", tmp_path / "out" / "model.safetensors")
    load_model(tmp_path / "out")
    load_tokenizer(tmp_path / "out")


def test_import_refuses(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(BadInput, match="neither an existing folder nor"):
        import_folder("./no/such/folder", None, tmp_path / "out")
    with pytest.raises(BadInput, match="leave it out"):
        import_folder(str(model_folder), "main", tmp_path / "out")


def test_import_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("outgoing traffic is disabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BadInput, match=r"someone/model is no folder here and could not be downloaded"):
        import_folder("someone/model", None, tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no config.json"),
        ({"params.json": "{}"}, "Meta's original format"),
        ({"adapter_config.json": "{}"}, "LoRA adapter"),
        ({"m.gguf": ""}, "gguf: {path"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, "only pickled weights"),
        ({"config.json": "{}"}, r"no \*.safetensors"),
        ({"config.json": '{"quantization_config": {"quant_method": "gptq"}}'}, "gptq"),
        ({"config.json": "{"}, "not valid JSON"),
        (
            {"config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "model-00002.safetensors"}}'},
            "names model-00002.safetensors, which is missing",
        ),
    ],
)
def test_what_is_no_model_folder(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=says):
        check_model_folder(tmp_path)


def test_missing_folder_and_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        check_model_folder(tmp_path / "none")
    with pytest.raises(BadInput, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_missing_tensors_are_not_filled_with_random_numbers(model_folder: Path, tmp_path: Path) -> None:
    folder = broken(model_folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 of its model's tensors.*model\.norm\.weight"):
        load_model(folder)


def test_damaged_weights_and_code_of_its_own(model_folder: Path, tmp_path: Path) -> None:
    folder = broken(model_folder, tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="damaged"):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "other", "auto_map": {"AutoModelForCausalLM": "modeling_other.Other"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_other.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_model(folder)


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(BadInput, match="unknown"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="sees no GPU"):
            resolve_device("cuda")

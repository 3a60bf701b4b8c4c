"""Models as ordinary Hugging Face folders: check, load, save, import. Runs no code from a folder, reads no pickle."""

import contextlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pandallm.errors import BadInput
from pandallm.model.spec import Dtype
from pandallm.store import read_json

#: What makes up a model folder; nothing else is copied or downloaded.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "LICENSE*",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def check_model_folder(path: Path) -> None:
    """Raise BadInput, saying what to do, unless `path` holds a model with unquantised safetensors weights."""
    if not path.is_dir():
        raise BadInput(f"{path} is not a folder: give the folder of a model, with config.json and *.safetensors.")
    if not (path / "config.json").is_file():
        if (path / "params.json").is_file() or any(path.glob("consolidated.*")):
            raise BadInput(
                f"{path} is in Meta's original format: convert it once with transformers' "
                "models/llama/convert_llama_weights_to_hf.py and give the folder it writes."
            )
        if (path / "adapter_config.json").is_file():
            raise BadInput(
                f"{path} holds a LoRA adapter, not a model: merge it into its base with `panda export` and give that folder."
            )
        if any(path.glob("*.gguf")):
            raise BadInput(f"{path} holds GGUF files: name one as base with `gguf: {{path: ...}}`.")
        raise BadInput(f"{path} has no config.json: give a Hugging Face model folder.")
    config = read_json(path / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise BadInput(f"{path}/config.json: the weights are quantised ({method}); give the unquantised model.")
    for index in path.glob("*.safetensors.index.json"):
        missing = sorted({f for f in read_json(index)["weight_map"].values() if not (path / f).is_file()})
        if missing:
            raise BadInput(f"{index} names {missing[0]}, which is missing: copy or download the model again.")
    if not any(path.glob("*.safetensors")):
        if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
            raise BadInput(
                f"{path} holds only pickled weights, which can run code when read: load it where you trust it and "
                "write it with `save_pretrained`, which gives safetensors."
            )
        raise BadInput(f"{path} holds no *.safetensors weights: copy or download the model again.")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and warnings."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Hold back peft's warnings, and what bitsandbytes, which it imports where that is installed, says of kernels that it lacks."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises BadInput when there is none that runs without the repository's code."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder: give the folder of a model or tokenizer.")
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise BadInput(f"{folder} has no tokenizer that can be read without its own code ({first_line(e)}).") from None


def load_model(folder: Path, dtype: Dtype | Literal["auto"] = "float32", device: str = "cpu") -> Any:
    """The folder's causal language model, in eval mode, with packed attention selected (`model.packed`).

    dtype `auto`: as stored.

    Raises BadInput for a folder that is not a model, needs code of its own, or lacks weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from pandallm.model.packed import PACKED_ATTENTION

    check_model_folder(folder)
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                attn_implementation=PACKED_ATTENTION,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise BadInput(f"{folder} cannot be loaded as a causal language model ({first_line(e)}).") from None
    except Exception as e:  # SafetensorError has no public base class
        if type(e).__name__ != "SafetensorError":
            raise
        raise BadInput(
            f"{folder} holds a damaged safetensors file ({first_line(e)}): copy or download it again."
        ) from None
    model, info = loaded
    if info["missing_keys"] or info["mismatched_keys"]:
        # transformers would fill these with random numbers and only warn.
        wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise BadInput(
            f"{folder} lacks {len(wrong)} of its model's tensors or has them in another shape, first {wrong[0]}."
        )
    return model.to(device).eval()


def save_model(model: Any, tokenizer: Any | None, folder: Path) -> None:
    """Write model and tokenizer as a Hugging Face folder with safetensors, whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _repair_generation_config(model)
    with quiet_transformers():
        model.save_pretrained(part)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
    for file in part.iterdir():
        with open(file, "rb") as f:
            os.fsync(f.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


def _repair_generation_config(model: Any) -> None:
    """Turn sampling on where its settings are: `save_pretrained` refuses what Llama 1 and 2 were published with."""
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    if not generation.do_sample and any(
        getattr(generation, name, None) not in (None, neutral)
        for name, neutral in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 50), ("min_p", None), ("typical_p", 1.0))
    ):
        generation.do_sample = True


def import_folder(model_id_or_path: str, revision: str | None, out: Path) -> dict[str, Any]:
    """Put a local folder's or a hub repository's model files below `out`; weights are hard-linked where possible.

    Returns facts: {"source", "revision" (commit of a hub repository, else None)}.
    Raises BadInput for a folder that is no model, and for a hub id that cannot be reached, found or read.
    """
    local = Path(model_id_or_path).expanduser()
    commit: str | None = None
    if local.is_dir():
        if revision is not None:
            raise BadInput(f"revision: {revision} is given for the local folder {local}; leave it out.")
        source = local
    elif _HUB_ID.fullmatch(model_id_or_path):
        source = _download(model_id_or_path, revision)
        commit = source.name
    else:
        raise BadInput(f"{model_id_or_path} is neither an existing folder nor a Hugging Face id such as name/model.")
    check_model_folder(source)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted({f for pattern in MODEL_FILES for f in source.glob(pattern) if f.is_file()}):
        _link_or_copy(file, out / file.name)
    load_tokenizer(out)
    return {"source": model_id_or_path, "revision": commit}


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    if source.suffix == ".safetensors":
        with contextlib.suppress(OSError):  # another file system
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _download(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    at = f"{model_id} (revision {revision})" if revision else model_id
    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(MODEL_FILES)))
    except errors.GatedRepoError:
        raise BadInput(f"{at} is gated: accept its licence on huggingface.co, then run `hf auth login`.") from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{model_id} has no revision {revision} on huggingface.co.") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"{at} is not on huggingface.co, or is private: check the name, or run `hf auth login`."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as e:
        raise BadInput(
            f"{at} is no folder here and could not be downloaded ({first_line(e)}): "
            "check the connection, or give a local folder."
        ) from None


def resolve_dtype(dtype: str, device: str) -> Dtype:
    """`auto` becomes bfloat16 on a GPU and on processors with bfloat16 instructions, float32 elsewhere (emulated, it is many times slower)."""
    if dtype != "auto":
        return "bfloat16" if dtype == "bfloat16" else "float32"
    import torch

    if resolve_device(device).startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


def resolve_device(device: str = "auto") -> str:
    """`auto` -> `cuda` where torch sees a GPU, else `cpu`. Raises BadInput for a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise BadInput(f"device: {device} is unknown; use auto, cpu, cuda or cuda:0.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(
            f"device: {device} is asked for, but torch {torch.__version__} sees no GPU here; use cpu or auto."
        )
    return device


def first_line(error: BaseException) -> str:
    """An error's first line, short enough for one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:160].rstrip(".:") if lines else type(error).__name__

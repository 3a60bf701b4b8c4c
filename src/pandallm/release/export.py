"""A copy of a model for other programs: an ordinary folder, opened with plain transformers and compared before it appears."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.model.folder import (
    MODEL_FILES,
    check_model_folder,
    first_line,
    load_model,
    load_tokenizer,
    quiet_transformers,
)
from pandallm.progress import SILENT, Progress
from pandallm.release.adapters import find_base, is_adapter, load_adapted, write_merged
from pandallm.release.container import check_disk, refuse_existing, staged
from pandallm.release.gguf_export import check_tokenizer, check_type, export_gguf, find_converter
from pandallm.store import canonical_json

DTYPES = ("float32", "bfloat16", "float16")
#: Tokens of the probe. Logits of pandallm's and transformers' own attention differ by float rounding; weights that were
#: read wrongly differ by more than the logits themselves.
_PROBE_TOKENS = 64
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.02}


def export_model(
    model: Path,
    out: Path,
    *,
    base: str | None = None,
    dtype: str | None = None,
    gguf: str | None = None,
    converter: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Copy the model folder to `out`, which must not exist: safetensors and tokenizer, in `dtype` or as stored.

    The copy is loaded with plain transformers (no code of the folder, its own attention) and its logits on a fixed
    probe compared with those of the model as pandallm loads it.
    gguf: a GGUF file of this type in `out` too, see `gguf_export`.

    A LoRA adapter is merged into `base`, a folder or hub id; where it is left out, into what `adapters.find_base` finds. The
    merged model is compared with base and adapter side by side.

    Returns {"out", "dtype", "bytes", "parameters", "largest_logit_difference", "same_bits": whether the weight files are the model's},
    and "base" for an adapter (without "parameters").
    Raises BadInput where the folder is no model, or `out` exists; PandaError where the copy's logits differ.
    """
    adapter = is_adapter(model)
    if base and not adapter:
        raise BadInput(f"--base is for adapters; {model} is a model of its own.")
    start = find_base(model, base) if adapter else model
    check_model_folder(start)
    refuse_existing(out)
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}.")
    if gguf:
        check_type(gguf)
        check_tokenizer(start)
        find_converter(converter)
    files = sorted({p for pattern in MODEL_FILES for p in start.glob(pattern) if p.is_file()})
    check_disk(out, sum(p.stat().st_size for p in files) * (3 if gguf else 1))
    with staged(out, canonical_json({"export": str(model.absolute()), "at": time.time()})) as part:
        if adapter:
            facts = _merged(model, start, part, dtype)
        elif dtype is None:
            for path in files:
                shutil.copyfile(path, part / path.name)
        else:
            _converted(model, part, dtype)
            for path in files:
                if not (part / path.name).exists() and not re.search(r"\.safetensors(\.index\.json)?$", path.name):
                    shutil.copyfile(path, part / path.name)
        if not adapter:
            facts = _compare(model, part, dtype)
        if gguf:
            progress.say("Writing the GGUF file with llama.cpp's converter …")
            facts["gguf"] = export_gguf(part, part / f"{out.name}-{gguf}.gguf", gguf, converter).name
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    return {"out": str(out), "bytes": size, "same_bits": dtype is None and not adapter, **facts}


def _converted(model: Path, out: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        loaded.save_pretrained(out)


def _compare(model: Path, out: Path, dtype: str | None) -> dict[str, Any]:
    import torch

    tokenizer = load_tokenizer(model)
    ours = load_model(model, "auto")
    stored = str(ours.dtype).removeprefix("torch.")
    with torch.inference_mode():
        want_BTV = ours(input_ids=_probe(ours)).logits.float()
    parameters = ours.num_parameters()
    del ours
    return {"dtype": dtype or stored, "parameters": parameters} | _check_copy(
        model, out, tokenizer, want_BTV, (stored, dtype or stored)
    )


def _merged(adapter: Path, base: Path, out: Path, dtype: str | None) -> dict[str, Any]:
    import torch

    adapted = load_adapted(adapter, base)
    with torch.inference_mode():
        want_BTV = adapted(input_ids=_probe(adapted)).logits.float()
    stored = write_merged(adapted, adapter, base, out, dtype)
    del adapted
    facts = _check_copy(adapter, out, load_tokenizer(out), want_BTV, (stored,))
    return {"dtype": stored, "base": str(base), **facts}


def _probe(model: Any) -> Any:
    """Token ids of a fixed draw, (1, tokens)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    limit = min(_PROBE_TOKENS, getattr(model.config, "max_position_embeddings", _PROBE_TOKENS))
    return torch.randint(0, model.config.vocab_size, (1, limit), generator=generator)


def _check_copy(model: Path, out: Path, tokenizer: Any, want_BTV: Any, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """Open the copy with plain transformers and compare its logits. Raises PandaError where they, or the tokenizer, differ."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        copied = AutoTokenizer.from_pretrained(out, trust_remote_code=False, local_files_only=True)
    if copied.get_vocab() != tokenizer.get_vocab():
        raise PandaError(f"The tokenizer of the copy of {model} differs; this is a bug, please report it.")
    with torch.inference_mode(), quiet_transformers():
        try:
            opened: Any = AutoModelForCausalLM.from_pretrained(
                out, dtype="auto", trust_remote_code=False, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError) as e:
            raise PandaError(f"Plain transformers does not open the copy of {model} ({first_line(e)}).") from None
        theirs, info = opened
        if info["missing_keys"] or info["mismatched_keys"]:
            raise PandaError(f"The copy of {model} lacks tensors ({sorted(map(str, info['missing_keys']))[:1]}).")
        have_BTV = theirs.eval()(input_ids=_probe(theirs)).logits.float()
    difference = float((have_BTV - want_BTV).abs().max())
    scale = float(want_BTV.abs().max())
    allowed = max(_TOLERANCE.get(name, 1e-3) for name in dtypes) * max(scale, 1.0)
    if not difference <= allowed:  # also NaN
        raise PandaError(
            f"The copy of {model} gives other logits in plain transformers (largest difference {difference:.3g}); nothing was written."
        )
    return {"largest_logit_difference": difference}

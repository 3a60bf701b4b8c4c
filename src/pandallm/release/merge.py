"""A LoRA adapter merged into its base, tensor by tensor: W + scale * B A in float32, rounded once to the base's type.

Matrix products differ in their last bits between machines, so a merge is not a way to ship a model: the merged folder
is, as the target of a delta.
"""

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.release.codec import CHUNK, FLOATS, cast
from pandallm.release.container import check_disk, refuse_existing, staged
from pandallm.release.weights import ADAPTER_CONFIG, ModelFolder, Tensor, open_model, read_elements, spans
from pandallm.store import canonical_json, read_json

_PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?")
_TOKENIZER = ("tokenizer", "special_tokens_map", "added_tokens", "chat_template", "vocab", "merges")

Matrix = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class _Change:
    """What is added to a weight: `scale` times the product of `left` (rows, r) and `right` (r, columns)."""

    scale: float
    left: Matrix
    right: Matrix


def merge_adapter(base: Path, adapter: Path, out: Path, *, progress: Progress = SILENT) -> None:
    """Write the folder `out`: the base with the adapter merged into it, and the adapter's tokenizer where it has one.

    Memory is the adapter's largest matrices and a few chunks. Raises BadInput for adapters that plain LoRA does not
    cover, for tensors that do not fit the base, and where `out` exists.
    """
    refuse_existing(out)
    model, tuned = open_model(base, "Base"), open_model(adapter, "Target")
    if not tuned.adapter:
        raise BadInput(f"{adapter} is no LoRA adapter (no {ADAPTER_CONFIG}); leave --merge out.")
    changes, replaced = _plan(model, tuned)
    check_disk(out, model.bytes)
    with (
        staged(out, canonical_json({"merge": [model.stamp(), tuned.stamp()]})) as part,
        progress.task("merge", model.bytes / 1e6, "MB") as task,
    ):
        for name, file in model.weights.items():
            with open(part / name, "wb") as f:
                f.write(file.header)
                for tensor in file.tensors:
                    for first, count in _row_spans(tensor):
                        f.write(_merged(tensor, first, count, changes.get(tensor.name), replaced.get(tensor.name)))
                        task.advance(count * tensor.bytes / max(tensor.count, 1) / 1e6)
        for name, path in model.others.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / name)
        for name, content in model.generated.items():
            (part / name).write_bytes(content)
        for name, path in tuned.others.items():
            if name.startswith(_TOKENIZER):
                shutil.copyfile(path, part / name)


def _plan(model: ModelFolder, tuned: ModelFolder) -> tuple[dict[str, _Change], dict[str, Tensor]]:
    """Changes of weights by name, and tensors that take the place of the base's."""
    where = f"{tuned.path / ADAPTER_CONFIG}"
    config = read_json(tuned.path / ADAPTER_CONFIG)
    elsewhere = "merge it with peft's merge_and_unload and give the folder that it saves"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadInput(f"{where} is not of type LORA; {elsewhere}.")
    if config.get("use_dora"):
        raise BadInput(f"{where} has use_dora; {elsewhere}.")
    pairs: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in tuned.tensors.items():
        part = _PART.fullmatch(name)
        if part:
            pairs.setdefault(part[1], {})[("embedding_" if part[2] else "") + part[3]] = tensor
            continue
        plain = name.removeprefix("base_model.model.").replace(".modules_to_save.", ".").replace(".base_layer.", ".")
        if plain not in model.tensors or model.tensors[plain].shape != tensor.shape or tensor.dtype not in FLOATS:
            raise BadInput(f"{tuned.path}: the base has no tensor that {name!r} fits; {elsewhere}.")
        replaced[plain] = tensor
    changes = {f"{module}.weight": _change(module, pair, config, model, tuned) for module, pair in pairs.items()}
    return changes, replaced


def _change(
    module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], model: ModelFolder, tuned: ModelFolder
) -> _Change:
    embedding = "embedding_A" in pair
    names = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    weight = model.tensors.get(f"{module}.weight")
    if set(pair) != set(names) or weight is None or weight.dtype not in FLOATS or len(weight.shape) != 2:
        raise BadInput(f"{tuned.path}: the base has no weight that the adapter's {module!r} fits.")
    a, b = (_matrix(pair[n], tuned) for n in names)
    if a.shape[0] != b.shape[1]:
        raise BadInput(f"{tuned.path}: the two matrices of {module!r} do not fit each other.")
    rank = a.shape[0]
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank)))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    turned = embedding or bool(config.get("fan_in_fan_out"))
    left, right = (a.T, b.T) if turned else (b, a)
    if (left.shape[0], right.shape[1]) != weight.shape:
        raise BadInput(
            f"{tuned.path}: {module!r} is {[left.shape[0], right.shape[1]]}, the base's {list(weight.shape)}."
        )
    return _Change(scale, np.ascontiguousarray(left), np.ascontiguousarray(right))


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that is the module's name or a dotted end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _matrix(tensor: Tensor, tuned: ModelFolder) -> Matrix:
    if tensor.dtype not in FLOATS or len(tensor.shape) != 2:
        raise BadInput(f"{tuned.path}: {tensor.name!r} is no matrix of floats.")
    data = b"".join(cast(read_elements(tensor, *span), tensor.dtype, "F32") for span in spans(0, tensor.count))
    return np.frombuffer(data, "<f4").reshape(tensor.shape)


def _row_spans(tensor: Tensor) -> list[tuple[int, int]]:
    """(first element, elements) of pieces of at most a chunk, whole rows where a row is no longer."""
    row = tensor.shape[-1] if len(tensor.shape) == 2 and 0 < tensor.shape[-1] <= CHUNK else 1
    step = CHUNK // row * row
    return [(first, min(step, tensor.count - first)) for first in range(0, tensor.count, step)]


def _merged(tensor: Tensor, first: int, count: int, change: _Change | None, replacement: Tensor | None) -> bytes:
    if replacement is not None:
        return cast(read_elements(replacement, first, count), replacement.dtype, tensor.dtype)
    data = read_elements(tensor, first, count)
    if change is None:
        return data
    columns = tensor.shape[1]
    rows = slice(first // columns, (first + count) // columns)
    wide = np.frombuffer(cast(data, tensor.dtype, "F32"), "<f4").reshape(-1, columns)
    added = wide + np.float32(change.scale) * (change.left[rows] @ change.right)
    return cast(added.astype("<f4").tobytes(), "F32", tensor.dtype)

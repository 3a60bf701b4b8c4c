"""What of the model is trained: all of it, what patterns name, only new rows, or adapters that are merged at the end."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pandallm.errors import BadInput
from pandallm.model.folder import quiet_peft, quiet_transformers
from pandallm.spec import nearest
from pandallm.store import read_json, write_json
from pandallm.train.optimizers import check_optimizer
from pandallm.train.quantised import dequantise, quantise
from pandallm.train.spec import LoraMethod, TrainSpec

#: Attribute of config.json that `grow_rows` writes: [first, one after the last] row of the tokens that base.extend added.
NEW_ROWS = "pandallm_new_rows"
EMBEDDINGS, ROWS = "embeddings", "new_rows"


@dataclass
class Method:
    """How a stage trains its model; made by `prepare_method`.

    `rows`: for each parameter of which only some rows move, [first, one after the last] of them. `peft`: the adapters'
    wrapper about the model, None for `full`.
    """

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    peft: Any = None

    @torch.no_grad()
    def mask_gradients(self, model: Any) -> None:
        """Set the gradient of rows that stay as they are to zero: after the last backward of a step, before clipping."""
        for name, (first, last) in self.rows.items():
            gradient = model.get_parameter(name).grad
            if gradient is None:
                continue
            gradient[:first] = 0
            gradient[last:] = 0

    def finish(self, model: Any, work: Path) -> Any:
        """The plain model to save: for adapters, writes `work/adapter` in peft's format and merges them."""
        if self.peft is None:
            return model
        adapter = work / "adapter"
        part = work / ".adapter.part"
        shutil.rmtree(part, ignore_errors=True)
        embeddings = model.get_input_embeddings().weight.requires_grad
        self.peft.save_pretrained(part, save_embedding_layers=embeddings, safe_serialization=True)
        (part / "README.md").unlink(missing_ok=True)  # peft's empty model card
        config = read_json(part / "adapter_config.json")
        # peft writes the folder that the base was read from: a path of this machine says nothing elsewhere.
        write_json(part / "adapter_config.json", {**config, "base_model_name_or_path": None})
        shutil.rmtree(adapter, ignore_errors=True)
        part.replace(adapter)
        if getattr(model, "is_loaded_in_4bit", False):
            dequantise(model)  # peft would put the sum into four bits again
        merged = self.peft.merge_and_unload()
        merged.eval()
        self.peft = None
        return merged


def check_method(spec: TrainSpec) -> None:
    """Raise BadInput where the stage needs a package that is not installed, and for an optimizer that is not known."""
    check_optimizer(spec.optimizer)
    if not isinstance(spec.method, LoraMethod):
        return
    for package in ("peft", "bitsandbytes") if spec.method.kind == "qlora" else ("peft",):
        if find_spec(package) is None:
            kind = spec.method.kind
            raise BadInput(f'method.kind: {kind} needs the package {package}: `pip install "pandallm[{kind}]"`.')


def prepare_method(model: Any, spec: TrainSpec, start: Path, *, seed: int) -> Method:
    """Freeze and put in place what `spec.method`, `trainable` and `freeze` say. Called before the optimizer and any sharding.

    LoRA (Hu et al. 2021, section 4): a frozen matrix W becomes W + alpha / rank * B A, B zero at the start, A drawn by
    `seed`; layers are exchanged in place, so `model` stays the same object. A layer that the patterns leave out gets no adapter.
    qlora: the linear layers are put into four bits first (`quantised.py`).
    Raises BadInput without peft, for a pattern or target that matches nothing, for `new_rows` of a model that was not extended, and where
    nothing is left to train.
    """
    check_method(spec)
    frozen = _matched(model, spec.freeze, "freeze")
    trained = _matched(model, spec.trainable, "trainable") - frozen
    embeddings = _embedding_names(model)
    rows = _new_rows(model, spec, start)
    method = Method()
    if isinstance(spec.method, LoraMethod):
        whole = (spec.method.train_embeddings or EMBEDDINGS in spec.trainable) and not frozen & set(embeddings)
        layers = _linear_targets(model, spec.method, trained)
        if spec.method.kind == "qlora":
            quantise(model, torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32)
        method.peft = _adapted(model, spec.method, layers, seed)
        trained = set(embeddings) if whole else set()
    else:
        whole = bool(trained & set(embeddings))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    if rows and not whole:
        trained |= set(embeddings)
    for name in trained:
        model.get_parameter(name).requires_grad_(True)
    if rows and not whole:
        method.rows = {n: rows for n, p in model.named_parameters() if n in embeddings and p.requires_grad}
    if not any(p.requires_grad for p in model.parameters()):
        raise BadInput("trainable and freeze leave nothing to train: name fewer patterns under freeze.")
    return method


def _embedding_names(model: Any) -> list[str]:
    matrices = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return [n for n, p in model.named_parameters(remove_duplicate=False) if any(p is m for m in matrices)]


def _matched(model: Any, patterns: Iterable[str], setting: str) -> set[str]:
    """The names that a pattern names, with those tied to them. Raises BadInput for a pattern without any."""
    names, found = [n for n, _ in model.named_parameters(remove_duplicate=False)], set[str]()
    for pattern in patterns:
        if pattern == ROWS:
            if setting == "freeze":
                raise BadInput("freeze: new_rows can only be trained; to keep them as they are, freeze embeddings.")
            continue
        if pattern == EMBEDDINGS:
            here = set(_embedding_names(model))
        else:
            here = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not here:
            known = sorted({re.sub(r"\.\d+\.", ".*.", n) for n in names} | {EMBEDDINGS, ROWS})
            raise BadInput(f"{setting}: '{pattern}' matches no parameter.{nearest(pattern, known)}")
        found |= here
    pointers = {id(model.get_parameter(n)) for n in found}
    return {n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in pointers}


def _new_rows(model: Any, spec: TrainSpec, start: Path) -> tuple[int, int] | None:
    if ROWS not in spec.trainable:
        return None
    rows = getattr(model.config, NEW_ROWS, None)
    if not rows:
        raise BadInput(
            f"trainable: new_rows needs a model whose vocabulary base.extend grew; {start} has no new rows: name `embeddings` instead."
        )
    return int(rows[0]), int(rows[1])


def _linear_targets(model: Any, method: LoraMethod, trained: set[str]) -> list[str]:
    """Names of the linear layers that get an adapter, in the model's order; the head gets none."""
    head = model.get_output_embeddings()
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    if "all-linear" in method.targets:
        wanted = set(layers)
    else:
        wanted = set()
        for target in method.targets:
            here = {n for n in layers if fnmatchcase(n, target) or n.rsplit(".", 1)[-1] == target}
            if not here:
                known = sorted({n.rsplit(".", 1)[-1] for n in layers} | {"all-linear"})
                raise BadInput(
                    f"method.targets: '{target}' names no linear layer (there are: {', '.join(known)}).{nearest(target, known)}"
                )
            wanted |= here
    chosen = [n for n in layers if n in wanted and f"{n}.weight" in trained]
    if not chosen:
        raise BadInput("trainable and freeze leave no layer for method.targets: name fewer patterns under freeze.")
    return chosen


def _adapted(model: Any, method: LoraMethod, layers: list[str], seed: int) -> Any:
    """peft's wrapper; the model inside is changed in place. Short names where they say the same (they go into adapter_config.json)."""
    with quiet_peft():
        from peft import LoraConfig, get_peft_model

    ends = {n.rsplit(".", 1)[-1] for n in layers}
    same = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.rsplit(".", 1)[-1] in ends]
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # a float works as well
        lora_dropout=0.0,
        target_modules=sorted(ends) if same == layers else layers,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), quiet_transformers(), quiet_peft():
        torch.manual_seed(seed)
        peft: Any = get_peft_model(model, config)
    return peft

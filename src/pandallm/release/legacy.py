"""The deltas of 2023 (FastChat, Panda, Alpaca), made and applied as a stream of tensors.

They are differences of floating-point numbers: what comes back is near the target, not the target. `delta.py` is the way
to ship a model bit for bit; this is for deltas that exist, and for people who only have those tools.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.release import alpaca
from pandallm.release.container import check_disk, refuse_existing, staged
from pandallm.release.legacy_layout import NOTE, TIED_SAID, Note, check_base, find_layout, read_note
from pandallm.release.legacy_rules import LAYOUTS, Layout, Term, Tied, is_tied, plan, restored, stored
from pandallm.release.stream import in_order
from pandallm.release.weight_writers import Described, write_safetensors, write_torch
from pandallm.release.weights import (
    INDEX,
    TORCH_INDEX,
    ModelFolder,
    open_model,
    spans,
    tensor_digest,
    tensor_hasher,
)
from pandallm.store import canonical_json
from pandallm.store.files import write_text

#: The dtype that each script writes; None: the target's own.
_DTYPES: dict[Layout, str | None] = {"fastchat": "F16", "panda": None, "alpaca": "F32"}
#: How each script treats a tied matrix. FastChat's apply adds it twice, so half of the difference is stored for it.
_TIED: dict[Layout, Tied | None] = {"fastchat": "half", "panda": None, "alpaca": "twice"}
_TORCH_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def make_legacy(
    base: Path,
    target: Path,
    out: Path,
    *,
    layout: Layout,
    dtype: str | None = None,
    torch_files: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the folder `out`: a delta that the published scripts apply, with hashes beside it that `apply_legacy` checks.

    layout: `fastchat`, `panda` or `alpaca`. dtype: F16, BF16 or F32; None for what the layout's script writes.
    torch_files: write `pytorch_model-*.bin` (which FastChat's `--low-cpu-mem` needs) instead of safetensors.
    Returns {"out", "layout", "dtype", "tied", "tensors", "whole", "left_out", "bytes", "values", "lost", "sum"}: of
    `values` weights that were subtracted, `lost` do not come back as they are in the target (rounded to dtype); `sum` is
    Alpaca's checksum of what comes back. Raises BadInput as `make_delta` does.
    """
    refuse_existing(out)
    _check_dtype(dtype)
    base_folder, target_folder = open_model(base, "Base"), open_model(target, "Target")
    _refuse_adapter(target_folder)
    dtype = dtype or _DTYPES[layout]
    tied = _TIED[layout] if is_tied(target_folder, base_folder) else None
    terms, left_out = plan(target_folder, base_folder, layout, tied, dtype, making=True)
    work = _Work(target_folder, terms, stored, torch_files)
    check_disk(out, work.bytes + _others_bytes(target_folder))
    stamps = [base_folder.stamp(), target_folder.stamp()]
    identity = canonical_json({"legacy make": [*stamps, layout, dtype, torch_files, __version__]})
    with staged(out, identity) as part, progress.task("legacy delta", work.bytes / 1e6, "MB") as task:
        work.write(part, task.advance)
        _copy_others(target_folder, part, dtype)
        note = Note(
            format="panda-legacy-delta",
            version=1,
            pandallm=__version__,
            layout=layout,
            tied=tied,
            base=_base_digests(terms),
            result=work.results,
        )
        write_text(part / NOTE, canonical_json(note.model_dump(mode="json")) + "\n")
        _unchanged([base_folder, target_folder], stamps)
    if tied:
        progress.say(TIED_SAID[tied])
    values = sum(t.other.count for t in terms if t.base is not None)
    total = alpaca.add_up(alpaca.with_tied_head(work.sums, target_folder))
    return work.facts(out, layout, tied, left_out) | {"values": values, "lost": work.lost, "sum": round(total.exact, 4)}


def apply_legacy(
    base: Path,
    delta: Path,
    out: Path,
    *,
    layout: Layout | None = None,
    tied: Tied | None = None,
    dtype: str | None = None,
    expected_sum: float | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Add `delta` to `base` and write the model `out` as safetensors; tokenizer and config are the delta's.

    layout, tied: None to find out (from the hashes beside a delta made here, else from the embeddings). dtype: of the
    result; None for the delta's. Sums are float32, rounded once. expected_sum: Alpaca's checksum that the result must have.
    Returns {"out", "layout", "dtype", "tied", "tensors", "whole", "left_out", "bytes", "verified", "sum", ...};
    `verified` is whether hashes of base and result were known and right. Raises BadInput where the base is wrong as far
    as that can be told, `out` exists or the sum differs; nothing is written then.
    """
    refuse_existing(out)
    _check_dtype(dtype)
    base_folder, delta_folder = open_model(base, "Base"), open_model(delta, "Delta")
    _refuse_adapter(delta_folder)
    note = read_note(delta)
    found = find_layout(base_folder, delta_folder, note, layout, tied)
    terms, left_out = plan(delta_folder, base_folder, found.layout, found.tied, dtype, making=False)
    for sentence in found.sentences:
        progress.say(sentence)
    for term in terms:
        if term.base is None and term.other.name in base_folder.tensors:
            had = base_folder.tensors[term.other.name]
            if had.shape != term.other.shape and had.shape and term.other.shape:
                progress.say(
                    f"Vocabulary differs: base {had.shape[0]}, target {term.other.shape[0]}. "
                    f"The delta stores {term.other.name!r} whole; using it as is."
                )
        elif term.base is not None and term.base.shape != term.other.shape:
            progress.say(
                f"Vocabulary differs: base {term.base.shape[0]}, target {term.other.shape[0]}. Rows of {term.other.name!r} "
                f"that the base lacks are {'added to the mean of its rows' if term.new_row.size else 'taken as they are'}."
            )
    if left_out:
        progress.say(f"Left out: {len(left_out)} rotary buffers that the base lacks; every model computes them.")
    work = _Work(delta_folder, terms, restored, False)
    check_disk(out, work.bytes + _others_bytes(delta_folder))
    check = note is not None and found.layout == note.layout and found.tied == note.tied
    if note is not None:
        check_base(note, base_folder, progress)
    stamps = [base_folder.stamp(), delta_folder.stamp()]
    identity = canonical_json({"legacy apply": [*stamps, found.layout, found.tied, dtype, __version__]})
    with staged(out, identity) as part, progress.task("legacy apply", work.bytes / 1e6, "MB") as task:
        work.write(part, task.advance)
        if check and note is not None and dtype is None:
            names = sorted(note.result.keys() | work.results.keys())
            wrong = [n for n in names if work.results.get(n) != note.result.get(n)]
            if wrong:
                raise BadInput(
                    f"Delta {delta} is damaged: tensor {wrong[0]!r} does not come out as {NOTE} says. Get it again. "
                    "Nothing was written."
                )
        total = alpaca.add_up(alpaca.with_tied_head(work.sums, delta_folder))
        facts = alpaca.sum_facts(total, expected_sum)
        if facts.get("verdict") == "different":
            raise BadInput(
                f"The weights' sum is {total.exact:.4f} and should be {expected_sum:.4f}: base or delta is not the one "
                "that it was taken of, and the sum cannot tell which; compare their files' sha256. Nothing was written."
            )
        _copy_others(delta_folder, part, dtype)
        _unchanged([base_folder, delta_folder], stamps)
    verified = note is not None and check and dtype is None
    if not verified and "verdict" not in facts:
        progress.say("Nothing says what the result should be; a wrong base would go unnoticed. Try the model.")
    return work.facts(out, found.layout, found.tied, left_out) | {"verified": verified} | facts


class _Work:
    """Terms computed in several threads, hashed, summed and written file by file."""

    def __init__(
        self,
        source: ModelFolder,
        terms: list[Term],
        function: Callable[[Term, int, int], Any],
        torch_files: bool,
    ) -> None:
        self._function, self._torch = function, torch_files
        by_name = {t.other.name: t for t in terms}
        kept = [[by_name[t.name] for t in f.tensors if t.name in by_name] for f in source.weights.values()]
        files = [f for f in kept if f]
        if torch_files:
            names = [f"pytorch_model-{i:05d}-of-{len(files):05d}.bin" for i in range(1, len(files) + 1)]
        elif len(files) == 1:
            names = ["model.safetensors"]
        else:
            names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
        self._files = dict(zip(names, files, strict=True))
        self._described = {t.other.name: Described(t.other.name, t.dtype, t.other.shape) for t in terms}
        self.bytes = sum(d.bytes for d in self._described.values())
        self.results: dict[str, str] = {}
        self.sums: dict[str, float] = defaultdict(float)
        self.lost = 0
        self._terms = terms

    def write(self, folder: Path, advance: Callable[[float], object]) -> None:
        """All files of weights and their index; files that an interrupted attempt finished are kept."""
        for name, terms in self._files.items():
            described = [self._described[t.other.name] for t in terms]
            hidden, state = folder / f".{name}", folder / f".{name}.json"
            if (folder / name).is_file() and state.is_file():
                self._again(json.loads(state.read_text()))
                advance(sum(d.bytes for d in described) / 1e6)
                continue
            write = write_torch if self._torch else write_safetensors
            lost = self.lost
            with closing(self._data(terms, advance)) as data:
                write(hidden, described, data)
            facts = {d.name: [self.results[d.name], self.sums[d.name]] for d in described}
            write_text(state, json.dumps({"tensors": facts, "lost": self.lost - lost}))
            os.replace(hidden, folder / name)
        if len(self._files) > 1 or self._torch:
            places = {t.other.name: name for name, terms in self._files.items() for t in terms}
            index = {"metadata": {"total_size": self.bytes}, "weight_map": places}
            text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
            write_text(folder / (TORCH_INDEX if self._torch else INDEX), text)

    def _again(self, state: Any) -> None:
        for name, (digest, total) in state["tensors"].items():
            self.results[name], self.sums[name] = digest, total
        self.lost += state["lost"]

    def _data(self, terms: list[Term], advance: Callable[[float], object]) -> Generator[bytes]:
        jobs = [(term, *span) for term in terms for span in spans(0, term.other.count)]
        with closing(in_order(partial(_call, self._function), jobs)) as parts:
            for term in terms:
                name, hasher = term.other.name, tensor_hasher(term.dtype, term.other.shape)
                self.results[name] = hasher.hexdigest()
                for _ in spans(0, term.other.count):
                    written, result, lost, total = next(parts)
                    hasher.update(result)
                    # Known before the last part is handed over: nobody may ask for more after it.
                    self.results[name] = hasher.hexdigest()
                    self.sums[name] += total
                    self.lost += lost
                    advance(len(written) / 1e6)
                    yield written

    def facts(self, out: Path, layout: Layout, tied: Tied | None, left_out: list[str]) -> dict[str, Any]:
        """What both verbs return."""
        return {
            "out": str(out),
            "layout": layout,
            "dtype": ", ".join(sorted({t.dtype for t in self._terms})),
            "tied": tied or "no",
            "tensors": len(self._terms),
            "whole": [t.other.name for t in self._terms if t.base is None],
            "left_out": left_out,
            "bytes": self.bytes,
        }


def _call(function: Callable[[Term, int, int], Any], job: tuple[Term, int, int]) -> tuple[bytes, bytes, int, float]:
    """(bytes to write, bytes of the result, lost, sum of the result)."""
    value = function(*job)
    written, result, lost = value if isinstance(value, tuple) else (value, value, 0)
    return written, result, lost, alpaca.values_sum(result, job[0].dtype)


def _base_digests(terms: list[Term]) -> dict[str, str]:
    needed = list({t.base.name: t.base for t in terms if t.base is not None}.values())
    return dict(zip((t.name for t in needed), in_order(tensor_digest, needed), strict=True))


def _copy_others(source: ModelFolder, out: Path, dtype: str | None) -> None:
    """Tokenizer, config and what else lies there; pickles are never copied."""
    for name, path in source.others.items():
        if name in (INDEX, TORCH_INDEX, NOTE):
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "config.json" and dtype is not None:
            (out / name).write_bytes(_with_dtype(path.read_bytes(), dtype))
        else:
            shutil.copyfile(path, out / name)


def _others_bytes(source: ModelFolder) -> int:
    return sum(path.stat().st_size for path in source.others.values())


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """The config with the dtype that the weights have, where it names one."""
    try:
        fields = json.loads(config)
    except ValueError:
        return config
    keys = [k for k in ("dtype", "torch_dtype") if isinstance(fields, dict) and k in fields]
    if not keys or all(fields[k] == _TORCH_DTYPES[dtype] for k in keys):
        return config
    fields |= dict.fromkeys(keys, _TORCH_DTYPES[dtype])
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def _check_dtype(dtype: str | None) -> None:
    if dtype is not None and dtype not in _TORCH_DTYPES:
        raise BadInput(f"dtype {dtype!r} is unknown; give one of {', '.join(_TORCH_DTYPES)}.")


def check_layout(layout: str) -> Layout:
    """The layout of this name, or BadInput."""
    for known in LAYOUTS:
        if layout == known:
            return known
    raise BadInput(f"layout {layout!r} is unknown; give one of {', '.join(LAYOUTS)}.")


def _refuse_adapter(folder: ModelFolder) -> None:
    if folder.adapter:
        raise BadInput(f"{folder.path} is a LoRA adapter; legacy deltas are of whole models.")


def _unchanged(folders: list[ModelFolder], before: list[list[list[str | int]]]) -> None:
    for folder, stamp in zip(folders, before, strict=True):
        if folder.stamp() != stamp:
            raise BadInput(f"{folder.path} was changed while it was read; run again when nothing writes to it.")

"""`panda release RUN`: a folder ready for the hub, written from a finished run, verified before it appears."""

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.pipeline.verify_release import verify_release
from pandallm.progress import SILENT, Progress
from pandallm.release.bundle import (
    FORMAT,
    PAGES_VERSION,
    RELEASE,
    RUN,
    pages,
    read_recipe,
    write_sums,
)
from pandallm.release.cards import describe_base
from pandallm.release.container import check_disk, refuse_existing, staged
from pandallm.release.licences import CONDITIONS, Licence, Shipping, base_licence, licence, shipping
from pandallm.release.spec import ReleaseSpec
from pandallm.store import canonical_json, digest_json, read_json, read_jsonl, write_json, write_jsonl, write_text

#: Names of licences in CITATION.cff are SPDX's.
_SPDX = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc0-1.0": "CC0-1.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "gpl-3.0": "GPL-3.0-only", "bsd-3-clause": "BSD-3-Clause",
}  # fmt: skip
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class FinishedRun:
    """The files of a run folder that a release needs."""

    folder: Path
    manifest: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def spec(self, **changes: Any) -> ReleaseSpec:
        """The recipe's `release`, with what the command line says instead."""
        stated = {k: v for k, v in (self.recipe.get("release") or {}).items() if k in ReleaseSpec.model_fields}
        try:
            return ReleaseSpec.model_validate({**stated, **{k: v for k, v in changes.items() if v}})
        except ValidationError as e:
            first = e.errors()[0]
            raise BadInput(f"release.{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None

    def model(self, name: str) -> Path:
        """The folder of one of its models."""
        path = self.folder / "models" / name
        if not path.is_dir():
            known = (
                sorted(p.name for p in (self.folder / "models").glob("*")) if (self.folder / "models").is_dir() else []
            )
            more = f"it has {', '.join(known)}" if known else "it has none"
            if path.is_symlink():
                more = "its link leads nowhere; the store was moved or removed, so run the recipe again"
            raise BadInput(f"{self.folder} has no model {name!r} ({more}).")
        return path.resolve()

    def stage(self, kind: str) -> list[Mapping[str, Any]]:
        """Its stages of a kind, as in the manifest."""
        return [s for s in self.manifest.get("stages") or () if s["kind"] == kind]


def open_run(folder: Path) -> FinishedRun:
    """A finished run; BadInput where it is none."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a run folder; give the folder that `panda run` made, such as runs/NAME-seed1.")
    for name in ("manifest.json", "recipe.yaml"):
        if not (folder / name).is_file():
            raise BadInput(f"{folder} holds no {name}, so there is nothing to release; finish `panda run` first.")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("state") != "complete":
        raise BadInput(
            f"The run in {folder} is {manifest.get('state')}, not complete; finish it with `panda run` first."
        )
    return FinishedRun(folder, manifest, read_recipe(folder))


def release_run(
    folder: Path,
    out: Path | None = None,
    *,
    ship: str | None = None,
    authors: tuple[str, ...] = (),
    gguf: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the release of the run in `folder` to `out` (RUN/release when left out), which must not exist.

    ship, authors: instead of the recipe's. gguf: also a GGUF file of this type (`f16`, `q8_0`), through llama.cpp's converter.

    Returns {"out", "kind", "ship", "why", "publish_as", "bytes", "files", "checked": [what was verified]}.
    Raises BadInput where the run is not finished, the base's licence does not allow what is asked, or `out` exists.
    """
    run = open_run(folder)
    spec = run.spec(ship=ship, authors=authors)
    out = out or folder / "release"
    refuse_existing(out)
    base, target = run.model(spec.base), run.model(spec.target)
    described = run.recipe.get("base") or {}
    own = bool(described.get("scratch"))
    found = licence(spec.licence) if own else base_licence(spec.licence, described, run.model("base"))
    decided = shipping(spec.ship, found, own)
    if isinstance(decided, str):
        raise BadInput(decided)
    if gguf and decided.what == "delta":
        raise BadInput(f"--gguf: a GGUF file holds all weights, but a delta is published. {decided.why}")
    files = sorted(p for p in target.iterdir() if p.is_file() and not p.name.startswith("."))
    check_disk(out, sum(p.stat().st_size for p in files) * (3 if gguf else 1) + 100_000_000)
    with staged(out, canonical_json({"release": str(folder.absolute()), "at": time.time()})) as part:
        copy_run(run, part / RUN)
        facts: dict[str, Any] = {"tokenizer": _ship_tokenizer(base, target, part, decided.what)}
        if decided.what == "delta":
            facts["delta"] = _ship_delta(run, spec, base, target, part, progress)
        else:
            facts["weights_root"] = _ship_weights(files, part, progress)
        for path in base.iterdir():
            if re.match(r"(LICENSE|NOTICE)", path.name) and not (part / path.name).exists():
                shutil.copyfile(path, part / path.name)
        if gguf:
            from pandallm.release.gguf_export import export_gguf

            facts["gguf"] = export_gguf(target, part / f"{run.manifest['name']}-{gguf}.gguf", gguf).name
        release = _release(run, spec, decided, found, own) | facts
        write_json(part / RELEASE, release)
        finish(part)
        checked = verify_release(part, base if decided.what == "delta" else None, progress)
    if decided.what == "weights" and found.kind == "conditions" and not any(base.glob("LICENSE*")):
        progress.say(
            f"The base's folder holds no LICENSE file; add the text of {found.name} to {out} before you publish."
        )
    return {
        "out": str(out),
        "kind": "model",
        "ship": decided.what,
        "why": decided.why,
        "publish_as": release["publish_as"] or "not stated",
        "bytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        "files": checked["files"],
        "checked": checked["checked"],
    }


def finish(part: Path) -> None:
    """Pages, report and sums of a release folder whose other files are there."""
    for name, page in pages(part).items():
        write_text(part / name, page)
    if (part / RUN / "scores.json").is_file():
        from pandallm.report.write import write_report

        write_report(part / RUN, part / "report.html", text=False)
    write_sums(part)


def _release(run: FinishedRun, spec: ReleaseSpec, decided: Shipping, found: Licence, own: bool) -> dict[str, Any]:
    described = run.recipe.get("base") or {}
    imported: Mapping[str, Any] = next((s["facts"] for s in run.stage("import")), {})
    model = str(described.get("model") or "")
    hub = model if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model) and not Path(model).exists() else ""
    if spec.base not in ("base", "original"):
        source = f"the stage '{spec.base}' of this run"
    else:
        source = hub or str(without_paths(describe_base(described)))
    publish = licence(spec.publish_as) if spec.publish_as else found
    as_name = publish.name if publish.kind != "unknown" or publish.written.strip() else ""
    return {
        **heading(run, spec, "model"),
        "target": spec.target,
        "ship": decided.what,
        "why": decided.why,
        "publish_as": as_name,
        "spdx": _SPDX.get(as_name),
        "notice": CONDITIONS.get(found.name) if decided.what == "weights" else None,
        "base": {
            "name": spec.base,
            "source": source,
            "hub_id": hub or None,
            "revision": described.get("revision") or imported.get("revision"),
            "licence": "of this run" if own else found.name,
            "licence_class": "own" if own else found.kind,
        },
    }


def heading(run: FinishedRun, spec: ReleaseSpec, kind: str) -> dict[str, Any]:
    """The fields of release.json that both kinds have."""
    return {
        "format": FORMAT,
        "version": 1,
        "pages_version": PAGES_VERSION,
        "kind": kind,
        "pandallm": __version__,
        "name": run.manifest["name"],
        "description": run.recipe.get("description", ""),
        "seed": run.manifest["seed"],
        "date": str(run.manifest.get("started", ""))[:10],
        "authors": list(spec.authors),
    }


def _ship_tokenizer(base: Path, target: Path, part: Path, what: str) -> list[str]:
    """Tokenizer files to lie beside the weights; of a delta only those that the base does not have, the rest come back with it."""
    names = sorted({p.name for pattern in _TOKENIZER_FILES for p in target.glob(pattern) if p.is_file()})
    if what == "delta":
        names = [n for n in names if not (base / n).is_file() or (base / n).read_bytes() != (target / n).read_bytes()]
        for name in names:
            shutil.copyfile(target / name, part / name)
    return names


def _ship_weights(files: list[Path], part: Path, progress: Progress) -> str:
    """Copy the model folder; returns its root: sha256 over the tensors' sha256, whatever the sharding."""
    from pandallm.release.weights import open_model, tensor_digest

    with progress.task("copy weights", sum(p.stat().st_size for p in files) / 1e6, "MB") as task:
        for path in files:
            shutil.copyfile(path, part / path.name)
            task.advance(path.stat().st_size / 1e6)
    model = open_model(files[0].parent, "Target")
    return digest_json({name: tensor_digest(tensor) for name, tensor in model.tensors.items()})


def _ship_delta(
    run: FinishedRun, spec: ReleaseSpec, base: Path, target: Path, part: Path, progress: Progress
) -> dict[str, Any]:
    """The run's delta where it is of the same pair, else one made now."""
    from pandallm.release.delta import inspect_delta, make_delta

    made, facts_file = run.folder / "delta", run.folder / "delta.json"
    stored = read_json(facts_file) if facts_file.is_file() else {}
    if made.is_dir() and (stored.get("base"), stored.get("target")) == (spec.base, spec.target):
        for path in sorted(made.iterdir()):
            shutil.copyfile(path, part / path.name)
    else:
        make_delta(base, target, part / "delta", progress=progress)
        for path in sorted((part / "delta").iterdir()):
            path.rename(part / path.name)
        (part / "delta").rmdir()
    facts = inspect_delta(part)
    return {k: facts[k] for k in ("bytes", "target_bytes", "ratio", "tensors", "ops", "base_root", "target_root")}


def copy_run(run: FinishedRun, out: Path) -> None:
    """The run's own files, without texts of questions, completions, and paths of this machine."""
    write_settings(run, out)
    for name in ("scores.json", "tasks.json", "delta.json", "bits_per_byte.jsonl"):
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, out / name)
    for name in ("ledgers", "contamination", "metrics", "held_out"):
        if (run.folder / name).is_dir():
            shutil.copytree(run.folder / name, out / name)
    if (run.folder / "rows.jsonl").is_file():
        write_jsonl(out / "rows.jsonl", ({**row, "completion": None} for row in read_jsonl(run.folder / "rows.jsonl")))
    if (run.folder / "questions.jsonl").is_file():
        blank = {"context": "", "question": ""}
        write_jsonl(
            out / "questions.jsonl",
            ({**q, **blank, "options": [""] * len(q["options"])} for q in read_jsonl(run.folder / "questions.jsonl")),
        )


def write_settings(run: FinishedRun, out: Path) -> None:
    """Manifest and recipe, without paths of this machine."""
    out.mkdir()
    write_json(out / "manifest.json", without_paths({k: v for k, v in run.manifest.items() if k != "command"}))
    write_text(out / "recipe.yaml", yaml.safe_dump(without_paths(run.recipe), sort_keys=False, allow_unicode=True))


def without_paths(value: Any) -> Any:
    """JSON in which of every absolute path only the last part is left: `.../NAME`."""
    if isinstance(value, Mapping):
        return {k: without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(v) for v in value]
    if isinstance(value, str):
        return re.sub(r"(?<![\w.:/}])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,'\"]+[/\\])*([^\s/\\,'\"]+)", r".../\1", value)
    return value

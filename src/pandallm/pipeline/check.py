"""What `panda check` says beyond types and names: what looks wrong in a recipe, from the recipe and its files' names alone."""

from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from pandallm.recipe.load import VARIABLE, expand
from pandallm.recipe.spec import Recipe
from pandallm.train.lint import lint_stage
from pandallm.train.spec import TrainSpec


def check_recipe(recipe: Recipe) -> list[str]:
    """Warnings, one sentence each, empty where nothing is to be said. No data is read and nothing is fetched.

    Steps that depend on the tokens of a corpus are not known here: `panda plan` knows them.
    """
    return [*_schedules(recipe), *_held_out(recipe), *_positions(recipe)]


def training_stages(recipe: Recipe) -> dict[str, tuple[str, TrainSpec, str]]:
    """Model -> (field of its settings, settings, corpus), in the order of a run."""
    stages: dict[str, tuple[str, TrainSpec, str]] = {}
    if scratch := recipe.base.scratch:
        stages["base"] = ("base.scratch.train", scratch.train, scratch.train.corpus)
    return stages | {name: (f"stages.{name}", s, s.corpus) for name, s in recipe.stages.items()}


def known_steps(recipe: Recipe, spec: TrainSpec, corpus: str) -> int | None:
    """Optimizer steps of a stage where the recipe alone tells them: `steps`, or `documents` of a row each; else None."""
    if spec.steps is not None:
        return spec.steps
    if spec.documents is not None and recipe.corpora[corpus].packing == "one_per_sequence":
        return -(-spec.documents // spec.batch_sequences)
    return None


def _schedules(recipe: Recipe) -> Iterator[str]:
    for field, spec, corpus in training_stages(recipe).values():
        if (steps := known_steps(recipe, spec, corpus)) is not None:
            for finding in lint_stage(spec, {"steps": steps}):
                yield f"{field}: {finding.text}"


def _held_out(recipe: Recipe) -> Iterator[str]:
    for name in recipe.evaluate.bits_per_byte if recipe.evaluate else ():
        corpus = recipe.corpora[name]
        kept = [s.held_out or corpus.held_out for s in corpus.sources.values()]
        if not any(h.documents or h.share for h in kept):
            yield f"evaluate.bits_per_byte: corpus '{name}' keeps no documents; set corpora.{name}.held_out.documents."


def _positions(recipe: Recipe) -> Iterator[str]:
    if scratch := recipe.base.scratch:
        most = scratch.architecture.max_position_embeddings
        for field, spec, _ in training_stages(recipe).values():
            if spec.sequence_length > most:
                yield (
                    f"{field}.sequence_length: {spec.sequence_length:,} is more than the model's {most:,} positions; "
                    "raise base.scratch.architecture.max_position_embeddings."
                )


def missing_files(recipe: Recipe) -> list[str]:
    """Sources whose patterns match no file here, a sentence for each of the recipe's paths: a run would refuse, a plan does not."""
    absent: dict[str, list[str]] = {}
    for name, corpus in recipe.corpora.items():
        for source, s in corpus.sources.items():
            for pattern in [s.files] if isinstance(s.files, str) else s.files:
                variables = VARIABLE.findall(pattern)
                if "world" in variables or _matches(expand(pattern, recipe.paths, "")):
                    continue
                absent.setdefault(variables[0] if variables else "", []).append(f"{name}.{source}")
    return [_missing(variable, list(dict.fromkeys(names))) for variable, names in absent.items()]


def _missing(variable: str, sources: list[str]) -> str:
    told = ", ".join(sources[:4]) + (f" and {len(sources) - 4} more" if len(sources) > 4 else "")
    where = f"; name their folder with PANDA_{variable.upper()}=FOLDER or paths.{variable}=FOLDER" if variable else ""
    return f"corpora: no files here of {told}{where}."


def _matches(pattern: str) -> bool:
    path = str(Path.cwd() / pattern)
    return bool(glob(path, recursive=True)) if has_magic(path) else Path(path).exists()


def check_text(path: Path, recipe: Recipe) -> str:
    """One recipe's result for people."""
    counts = f"{_count(len(recipe.corpora), 'corpus', 'corpora')}, {_count(len(recipe.stages), 'stage', 'stages')}"
    lines = [f"{path}: ok ({recipe.name}: {counts})"]
    lines += [f"  warning: {w}" for w in check_recipe(recipe)]
    return "\n".join(lines + [f"  note: {n}" for n in missing_files(recipe)])


def _count(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


def check_json(path: Path, recipe: Recipe) -> dict[str, Any]:
    """One recipe's result for programs."""
    found = {"warnings": check_recipe(recipe), "notes": missing_files(recipe)}
    return {"ok": True, "recipe": str(path), "name": recipe.name, "stages": list(recipe.stages), **found}

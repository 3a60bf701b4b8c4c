"""The model that exists before any training here: imported (and its vocabulary extended), or initialised from scratch."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.data.spec import ExtendSpec, VocabularySpec
from pandallm.progress import Progress
from pandallm.recipe.spec import Recipe
from pandallm.store import Artifact, Work, digest_file

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run


def import_base(run: "Run") -> Artifact:
    """The base as an ordinary Hugging Face folder, from a folder, a hub id or a GGUF."""
    base = run.recipe.base

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.model.folder import import_folder
        from pandallm.model.gguf import import_gguf

        if base.gguf:
            return import_gguf(base.gguf, work.folder / "model")
        assert base.model is not None
        return import_folder(base.model, base.revision, work.folder / "model")

    inputs: dict[str, str] = {}
    settings: dict[str, Any] = {}
    if base.model and Path(base.model).is_dir():
        from pandallm.model.folder import check_model_folder
        from pandallm.store import digest_folder

        check_model_folder(Path(base.model))
        inputs = {"folder": digest_folder(Path(base.model))}
    elif base.gguf:
        from pandallm.model.gguf import find_gguf

        inputs = {"gguf": digest_file(find_gguf(base.gguf))}
    else:
        settings = {"model": base.model, "revision": base.revision}
    return run.stage("import base", "import", settings, inputs, make)


def vocabulary_settings(spec: ExtendSpec | VocabularySpec) -> dict[str, Any]:
    """What of its settings new or more vocabulary depends on, beside the corpora."""
    settings = spec.model_dump(mode="json", exclude={"corpora"})
    if not spec.special:
        del settings["special"]  # as keys were before there was such a field
    return settings


def extended_on(recipe: Recipe) -> tuple[str, ...]:
    """The corpora that base.extend learns new pieces on; special tokens alone need no text."""
    spec = recipe.base.extend
    return (spec.corpora or tuple(recipe.corpora)) if spec and spec.size else ()


def extend_base(run: "Run", original: Artifact) -> Artifact:
    """The base with new pieces in its vocabulary and rows for them: again an ordinary Hugging Face folder."""
    from pandallm.data.extend import check_base

    spec = run.recipe.base.extend
    assert spec is not None
    check_base(original.path / "model")  # before the corpora are cleaned
    cleaned = {c: run.corpus(c) for c in extended_on(run.recipe)}

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.data.extend import characters_per_token, extend_tokenizer, new_parts
        from pandallm.model.grow import grow_rows

        source, model, tokenizer = original.path / "model", work.folder / "model", work.folder / ".tokenizer"
        corpora = [artifact.path for artifact in cleaned.values()]
        facts = extend_tokenizer(spec, source, corpora, tokenizer, progress=progress)
        report = characters_per_token(source, tokenizer, corpora) if corpora else None
        first, parts = new_parts(tokenizer)
        rows = grow_rows(
            source, model, first, parts, init=spec.init, pad_to_multiple=spec.pad_to_multiple, seed=run.recipe.seed
        )
        os.replace(tokenizer / "pieces.jsonl", work.folder / "pieces.jsonl")
        for file in sorted(tokenizer.iterdir()):
            os.replace(file, model / file.name)
        for file in sorted(source.iterdir()):  # settings of the tokenizer, chat template, licence
            stale = ".safetensors" in file.name or file.name == "tokenizer.model"
            if not stale and not (model / file.name).exists():
                shutil.copyfile(file, model / file.name)
        return {**facts, **rows, "characters_per_token": report}

    settings = {**vocabulary_settings(spec), "seed": run.recipe.seed}
    inputs = {"base": original.digest, **{f"corpus:{c}": a.digest for c, a in cleaned.items()}}
    artifact = run.stage("extend vocabulary", "extend", settings, inputs, make)
    facts = artifact.manifest["facts"]
    told = f"extend vocabulary: {facts['tokens_before']:,} to {facts['tokens']:,} tokens"
    if report := facts["characters_per_token"]:
        before, after = (report["total"][f"characters_per_token_{when}"] for when in ("before", "after"))
        told += f"; characters per token on {report['text']} text {before:.2f} before, {after:.2f} now"
    run.progress.say(told)
    return artifact


def initialise_base(run: "Run") -> Artifact:
    """A base made here: tokenizer from the recipe's corpora, random weights."""
    scratch = run.recipe.base.scratch
    assert scratch is not None
    corpora = scratch.tokenizer.corpora or tuple(run.recipe.corpora)
    cleaned = {c: run.corpus(c) for c in corpora}

    def make_tokenizer(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.data.vocabulary import train_tokenizer

        return train_tokenizer(
            scratch.tokenizer, [a.path for a in cleaned.values()], work.folder / "tokenizer", progress=progress
        )

    vocabulary = vocabulary_settings(scratch.tokenizer)
    tokenizer = run.stage(
        "train tokenizer", "tokenizer", vocabulary, {c: a.digest for c, a in cleaned.items()}, make_tokenizer
    )

    def make_model(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.model.scratch import init_scratch

        return init_scratch(scratch.architecture, tokenizer.path / "tokenizer", work.folder / "model", run.recipe.seed)

    settings = {"architecture": scratch.architecture.model_dump(mode="json"), "seed": run.recipe.seed}
    return run.stage("initialise base", "init", settings, {"tokenizer": tokenizer.digest}, make_model)

"""Corpora of a recipe: raw files -> cleaned corpus -> token packs, each a stage of the store."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.data.spec import CorpusSpec, DatasetSpec
from pandallm.progress import Progress
from pandallm.recipe.load import expand
from pandallm.recipe.spec import Recipe
from pandallm.store import Artifact, FileDigests, Work, digest_file, digest_json, read_json
from pandallm.train.spec import TrainSpec

if TYPE_CHECKING:
    from pandallm.data.chat_cut import ChatTemplate
    from pandallm.data.engine import Engine
    from pandallm.data.hub import DatasetFiles
    from pandallm.pipeline.run import Run

#: Fields of a training stage that shape the packs, not the optimizer.
PACK_FIELDS = ("epochs", "documents", "tokens", "steps", "sequence_length", "batch_sequences")


def source_files(recipe: Recipe, corpus: str, source: str, variables: Mapping[str, str]) -> list[Path]:
    """The files of a source, `${names}` replaced; a data set by id is fetched where the cache lacks it.

    Raises BadInput where a pattern matches nothing or the data set cannot be had.
    """
    from pandallm.data.files import resolve_files

    spec = recipe.corpora[corpus].sources[source]
    where = f"corpora.{corpus}.sources.{source}.files"
    if spec.dataset:
        return list(_dataset(spec.dataset, corpus, source, variables).files)
    patterns = [spec.files] if isinstance(spec.files, str) else list(spec.files)
    return resolve_files([str(Path.cwd() / expand(p, variables, where)) for p in patterns], where)


def _dataset(spec: DatasetSpec, corpus: str, source: str, variables: Mapping[str, str]) -> "DatasetFiles":
    from pandallm.data.hub import dataset_files

    where = f"corpora.{corpus}.sources.{source}.dataset"
    return dataset_files(spec.model_copy(update={"id": expand(spec.id, variables, where)}), where)


def engine_of(run: "Run") -> "Engine":
    """Where the data stages of a run are worked on; started by the first of them that needs it, warm for the next."""
    from pandallm.data.engine import open_engine

    if "_engine" not in run.__dict__:
        runtime = run.recipe.runtime
        run.__dict__["_engine"] = open_engine(runtime.engine, run.workers, runtime.ray_address)
    engine: Engine = run.__dict__["_engine"]
    return engine


def close_engine(run: "Run") -> None:
    """Let the workers of the data stages go: training needs their memory."""
    if engine := run.__dict__.pop("_engine", None):
        engine.close()


#: Fields of a source that the cleaned corpus does not depend on; `files` and `templates.file` are in it by their digests.
_NOT_CLEANING: dict[str, Any] = {
    "files": True,
    "share": True,
    "max_epochs": True,
    "licence": True,
    "expected": True,
    "min_quality": True,
    "templates": {"file"},
}


def clean_settings(name: str, spec: CorpusSpec) -> dict[str, Any]:
    """What of a corpus's settings its cleaning depends on."""
    fields = spec.model_dump(mode="json", exclude={"packing": True, "sources": {"__all__": _NOT_CLEANING}})
    return {"name": name, **fields}


def pack_settings(recipe: Recipe, spec: TrainSpec, corpus: str) -> dict[str, Any]:
    """What of a recipe the packs of one stage depend on, beside the cleaned corpus and the tokenizer."""
    c = recipe.corpora[corpus]
    mix = {
        s: {"share": v.share, "max_epochs": v.max_epochs, "min_quality": v.min_quality} for s, v in c.sources.items()
    }
    fields = spec.model_dump(mode="json", include=set(PACK_FIELDS))
    if spec.chat_template != "none":
        fields["chat_template"] = spec.chat_template
    if spec.loss_on != "answers":
        fields["loss_on"] = spec.loss_on
    return {**fields, "packing": c.packing, "mix": mix, "seed": recipe.seed}


def train_settings(recipe: Recipe, spec: TrainSpec) -> dict[str, Any]:
    """What of a recipe a training stage depends on, beside its packs and the model it starts from."""
    left_out = {*PACK_FIELDS, "chat_template", "loss_on", "from_", "corpus", *(() if spec.watch else ("watch",))}
    if spec.variant == "auto":  # what it is resolved to is added with the rest that only the device tells
        left_out.add("variant")
    return spec.model_dump(mode="json", exclude=left_out) | {"seed": recipe.seed}


def clean(run: "Run", name: str) -> Artifact:
    """The cleaned corpus of this name: from the store, or made now, from what a killed attempt left."""
    from pandallm.data.adapters import templates_digest
    from pandallm.data.clean import clean_corpus
    from pandallm.data.steps import step_versions
    from pandallm.tasks.read import task_texts

    spec, variables = run.recipe.corpora[name], run.variables()
    files, revisions = dict[str, list[Path]](), dict[str, str | None]()
    for source, s in spec.sources.items():
        if s.dataset:
            found = _dataset(s.dataset, name, source, variables)
            files[source], revisions[source] = list(found.files), found.revision
        else:
            files[source] = source_files(run.recipe, name, source, variables)
    against = spec.decontaminate.against if spec.decontaminate else ()
    contamination = {task: task_texts(run.tasks()[task][1]) for task in against}
    known = FileDigests(run.store.root / "file_digests.json")
    inputs = {f"{source}/{i}": d for source, paths in files.items() for i, d in enumerate(known.of(paths))}
    inputs |= {f"task:{task}": digest_json(texts) for task, texts in contamination.items()}
    inputs |= {
        f"templates:{source}": templates_digest(s.templates, f"corpora.{name}.sources.{source}")
        for source, s in spec.sources.items()
        if s.templates
    }
    inputs |= {
        f"steps:{source}": digest_json(versions)
        for source, s in spec.sources.items()
        if (versions := step_versions(spec.clean if s.clean is None else s.clean))
    }

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        engine = engine_of(run)
        facts = clean_corpus(
            name, spec, files, work.folder, contamination=contamination, engine=engine, progress=progress
        )
        return {**facts, "revisions": revisions} if revisions else facts

    artifact = run.stage(f"clean {name}", "clean", clean_settings(name, spec), inputs, make, resumes=True)
    if lost := artifact.manifest["facts"]["total"]["quarantined"]["records"]:
        run.progress.say(f"clean {name}: {lost} records could not be read; see {artifact.path / 'quarantine.jsonl'}")
    return artifact


def pack(run: "Run", name: str, spec: TrainSpec, corpus: str) -> Artifact:
    """Token packs of one stage, in the order in which it reads them."""
    cleaned, c = run.corpus(corpus), run.recipe.corpora[corpus]
    folder, _ = run.start()
    chat = stage_template(spec, folder)

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.data.pack import pack_corpus

        return pack_corpus(
            cleaned.path,
            folder,
            work.folder,
            packing=c.packing,
            sources=c.sources,
            seed=run.recipe.seed,
            engine=engine_of(run),
            chat=chat,
            loss_on=spec.loss_on,
            progress=progress,
            **{f: getattr(spec, f) for f in PACK_FIELDS},
        )

    inputs = {"corpus": cleaned.digest, "tokenizer": _tokenizer_digest(folder)}
    if chat:
        inputs["chat_template"] = chat.digest
    artifact = run.stage(f"pack {name}", "pack", pack_settings(run.recipe, spec, corpus), inputs, make, resumes=True)
    for warning in artifact.manifest["facts"]["warnings"]:
        run.progress.say(f"pack {name}: {warning}")
    return artifact


def stage_template(spec: TrainSpec, folder: Path) -> "ChatTemplate | None":
    """The chat template that a stage writes dialogues with, for the tokenizer in `folder`; None under `none`.

    Raises BadInput for a template that does not fit the tokenizer.
    """
    if spec.chat_template == "none":
        return None
    from pandallm.data.chat import open_template

    return open_template(spec.chat_template, folder)


def _tokenizer_digest(folder: Path) -> str:
    """Digest of the files that decide token ids (not of the weights beside them)."""
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
    )
    files: dict[str, Any] = {n: digest_file(folder / n) for n in names if (folder / n).is_file()}
    if (folder / "config.json").is_file():  # names EOS and BOS where the tokenizer's own files do not
        files |= {k: v for k, v in read_json(folder / "config.json").items() if k in ("bos_token_id", "eos_token_id")}
    return digest_json(files)

"""Tokens of every stage of a recipe, by the best of what is at hand: packs, files, figures in the recipe, the budget alone."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pandallm.data.streams import COMPRESSIONS
from pandallm.errors import BadInput, PandaError
from pandallm.model.shape import ModelShape, extended_share, tokens_per_byte
from pandallm.pipeline.corpora import PACK_FIELDS, source_files
from pandallm.pipeline.plan.base import tokenizer_folder
from pandallm.pipeline.plan.sample import SAMPLE_BYTES, CorpusSample, sample_corpus
from pandallm.pipeline.plan.stored import StoredStages
from pandallm.pipeline.plan.tokens import (
    EXPECTED_ERROR,
    FILL,
    TEXT_ERROR,
    SourceTokens,
    StageTokens,
    budget_tokens,
    expected_sources,
    source_tokens_of_packs,
    source_tokens_of_text,
    stage_tokens,
    tokens_of_packs,
)
from pandallm.store import read_json
from pandallm.train.spec import TrainSpec

#: Relative error of a sample's tokens that its records do not show, and what the copies that are still in it add; judgement.
SAMPLE_ERROR = 0.02
COPIES_ERROR = {"none": 0.0, "exact": 0.03, "minhash": 0.1}
#: Bytes of a cleaned corpus, compressed, by bytes of its text; measured on the collections of docs/real-text.md it varies from .3 to .6.
CLEANED_SHARE = 0.45


@dataclass
class Estimates:
    """Estimates tokens, keeping cleaned samples for the next stage. Use as a context manager: its folder is temporary."""

    stored: StoredStages
    shape: ModelShape
    sample_bytes: float = SAMPLE_BYTES

    def __enter__(self) -> "Estimates":
        self._folder = Path(tempfile.mkdtemp(prefix="panda-plan-"))
        self._samples: dict[str, CorpusSample | None] = {}
        self._tokenizer: tuple[Path | None, bool] | None = None
        self._variables: dict[str, str] | None = None
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def stage(self, name: str, spec: TrainSpec, corpus: str) -> StageTokens:
        """Tokens of one stage. Raises BadInput where nothing is known, or the budget cannot be filled."""
        if artifact := self.stored.packs.get(name):
            return tokens_of_packs(artifact.path)
        where = f"stages.{name}" if name in self.stored.recipe.stages else "base.scratch.train"
        settings = self.stored.recipe.corpora[corpus]
        per_byte = tokens_per_byte(*self._vocabulary())
        if sample := self._sample(corpus):
            if found := self._of_sample(where, name, spec, corpus, sample):
                return found
            sources = source_tokens_of_text(
                sample.folder, {s: v.share for s, v in sample.sources.items()}, per_byte, spec
            )
            return stage_tokens(where, spec, settings, sources, source="text", error=TEXT_ERROR)
        if sources := expected_sources(settings, per_byte, spec):
            return stage_tokens(where, spec, settings, sources, source="expected", error=EXPECTED_ERROR)
        if alone := budget_tokens(spec):
            return alone
        raise BadInput(
            f"{where}: the files of corpus '{corpus}' are not here and nothing says how much they hold; give the paths, or "
            f"corpora.{corpus}.sources.SOURCE.expected: {{records: .., bytes_per_record: ..}} for each source."
        )

    def _vocabulary(self) -> tuple[int, int]:
        extend = self.stored.recipe.base.extend
        added = extend.size if extend and self.stored.start_folder() is None else 0
        return self.shape.vocab_size - added, added

    def cleaned_bytes(self, corpus: str) -> float | None:
        """Bytes that a cleaned corpus will take: by its sample, else its files, else what the recipe expects; None where nothing is known."""
        if sample := self._samples.get(corpus):
            return CLEANED_SHARE * sum(s.raw_bytes / s.share for s in sample.sources.values())
        if files := self._files(corpus):
            # Compressed files stay about as large.
            return sum(
                f.stat().st_size * (1.0 if f.suffix.lower() in (*COMPRESSIONS, ".tgz") else CLEANED_SHARE)
                for paths in files.values()
                for f in paths
            )
        per_byte = tokens_per_byte(*self._vocabulary())
        total = 0.0
        for source in self.stored.recipe.corpora[corpus].sources.values():
            e = source.expected
            if e is None or (e.bytes_per_record is None and e.tokens_per_record is None):
                return None
            each = e.bytes_per_record
            if each is None:
                assert e.tokens_per_record is not None
                each = e.tokens_per_record / per_byte.get(source.language, per_byte["other"])
            total += each * min(e.records, source.max_records or e.records)
        return CLEANED_SHARE * total

    # Samples --------------------------------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What ${name} stands for; a synthetic world that the store lacks is made in the temporary folder."""
        if self._variables is None:
            recipe = self.stored.recipe
            values = dict(recipe.paths)
            if recipe.world:
                world = self.stored.found.get("world")
                folder = world.path if world else self._folder / "world"
                if not world:
                    from pandallm.microworld.make import make_world

                    make_world(recipe.world, recipe.seed, folder)
                values["world"] = str(folder)
            self._variables = values
        return self._variables

    def _files(self, corpus: str) -> dict[str, list[Path]] | None:
        """Files of each source; None where one source's are not here."""
        recipe = self.stored.recipe
        found = {}
        for source, spec in recipe.corpora[corpus].sources.items():
            if spec.dataset:
                return None
            try:
                found[source] = source_files(recipe, corpus, source, self.variables())
            except BadInput:
                return None
        return found

    def _sample(self, corpus: str) -> CorpusSample | None:
        """A cleaned sample; the cleaned corpus itself, whole, where it is built."""
        if corpus in self._samples:
            return self._samples[corpus]
        self._samples[corpus] = None
        spec = self.stored.recipe.corpora[corpus]
        files = self._files(corpus)
        if files is None:
            return None
        against: dict[str, Any] = {}
        if spec.decontaminate:
            from pandallm.tasks.read import task_texts

            try:
                tasks = self.stored.tasks()
                against = {t: task_texts(tasks[t][1]) for t in spec.decontaminate.against}
            except PandaError:
                spec = spec.model_copy(update={"decontaminate": None})
        self._samples[corpus] = sample_corpus(
            corpus, spec, files, self._folder, contamination=against or None, wanted=self.sample_bytes
        )
        return self._samples[corpus]

    def _of_sample(
        self, where: str, name: str, spec: TrainSpec, corpus: str, sample: CorpusSample
    ) -> StageTokens | None:
        """By packing a sample with the tokenizer; None where there is no tokenizer and none can be trained."""
        from pandallm.data.pack import pack_corpus
        from pandallm.pipeline.corpora import stage_template

        tokenizer, before_extension = self._tokenizer_of()
        if tokenizer is None:
            return None
        settings = self.stored.recipe.corpora[corpus]
        exact = sample.whole and not before_extension and self._own_tokenizer_is_exact()
        budget: dict[str, Any] = {f: getattr(spec, f) for f in PACK_FIELDS}
        sources = dict(settings.sources)
        if not exact:
            budget |= {"epochs": 1.0, "documents": None, "tokens": None, "steps": None}
            sources = {s: v.model_copy(update={"share": None}) for s, v in sources.items()}
        out = self._folder / f"pack-{name}"
        pack_corpus(
            sample.folder,
            tokenizer,
            out,
            packing=settings.packing,
            sources=sources,
            seed=self.stored.recipe.seed,
            chat=stage_template(spec, tokenizer),
            **budget,
        )
        if exact:
            return tokens_of_packs(out, "all files")
        whole = tokens_of_packs(out, "sample")
        extend = self.stored.recipe.base.extend
        factor = extended_share(extend.size) if before_extension and extend else 1.0
        scaled = source_tokens_of_packs(out, {s: v.share for s, v in sample.sources.items()})
        scaled = {
            s: _scaled(v, factor if settings.sources[s].language.startswith("zh") else 1.0) for s, v in scaled.items()
        }
        fill = float(read_json(out / "pack.json")["fill"]) if whole.rows > 20 else FILL
        error = SAMPLE_ERROR + 2 * _sampling_error(out, sample)
        error += 0.0 if sample.whole else COPIES_ERROR[settings.dedup.kind]
        error += 0.2 if before_extension else 0.0
        return stage_tokens(
            where,
            spec,
            settings,
            scaled,
            source="sample" if not sample.whole else "all files",
            error=error,
            fill=fill,
            context_tokens=whole.context_tokens * factor,
        )

    def _tokenizer_of(self) -> tuple[Path | None, bool]:
        if self._tokenizer is None:
            base = self.stored.recipe.base
            self._tokenizer = tokenizer_folder(base, self.stored.start_folder())
            if self._tokenizer[0] is None and base.scratch:
                self._tokenizer = (self._trained_tokenizer(), False)
        return self._tokenizer

    def _trained_tokenizer(self) -> Path | None:
        """A tokenizer for a base from scratch, trained on samples of its corpora."""
        from pandallm.data.vocabulary import train_tokenizer

        scratch = self.stored.recipe.base.scratch
        assert scratch is not None
        names = scratch.tokenizer.corpora or tuple(self.stored.recipe.corpora)
        samples = [self._sample(c) for c in names]
        folders = [s.folder for s in samples if s is not None]
        if len(folders) < len(samples):
            return None
        train_tokenizer(scratch.tokenizer, folders, self._folder / "tokenizer")
        return self._folder / "tokenizer"

    def _own_tokenizer_is_exact(self) -> bool:
        scratch = self.stored.recipe.base.scratch
        if scratch is None or self.stored.start_folder() is not None:
            return True
        names = scratch.tokenizer.corpora or tuple(self.stored.recipe.corpora)
        return all((s := self._sample(c)) is not None and s.whole for c in names)


def _scaled(source: SourceTokens, factor: float) -> SourceTokens:
    return source if factor == 1.0 else replace(source, unique=source.unique * factor, rows=source.rows * factor)


def _sampling_error(packs: Path, sample: CorpusSample) -> float:
    """Relative standard error of all tokens, from how examples of a source differ in length."""
    import pyarrow.parquet as pq

    table = pq.read_table(packs / "examples.parquet", columns=["source", "tokens"])
    names = np.array(table.column("source").to_pylist())
    tokens = table.column("tokens").to_numpy().astype(np.float64)
    variance = total = 0.0
    for name, taken in sample.sources.items():
        own = tokens[names == name]
        if len(own) < 2:
            continue
        scale = 1 / max(taken.share, 1e-12)
        total += own.sum() * scale
        if taken.share < 1:
            # Records are taken by bytes, which go with tokens: what is left differs by source; a fifth of the spread of lengths.
            variance += (0.2 * own.std() * np.sqrt(len(own)) * scale) ** 2
    return float(np.sqrt(variance) / total) if total else 0.0

"""What of a recipe the store holds already: the real keys, looked up and never made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.corpora import pack, source_files
from pandallm.pipeline.graph import stage_graph
from pandallm.pipeline.held_out import watched_corpora
from pandallm.pipeline.plan.hours import gpus_here, has_bfloat16
from pandallm.pipeline.run import VERSIONS, Run
from pandallm.recipe.spec import Recipe
from pandallm.store import Artifact, FileDigests, Store
from pandallm.train.spec import TrainSpec

#: A plan reads at most so many bytes of files whose digests are not known; larger ones count as not built.
READ_BYTES = 256 << 20


class _Missing(Exception):
    """A stage that the store lacks."""


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's libraries answer from their cache alone."""
    import importlib.util

    from huggingface_hub import constants

    places: list[Any] = [constants]
    if importlib.util.find_spec("datasets"):
        import datasets

        places.append(datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _variant_parts(spec: TrainSpec) -> list[dict[str, Any]]:
    """What of a variant may stand in the stage's key, the usual first."""
    from pandallm.train.variants import PLAIN, key_part

    layers = ("plain", "bfloat16", "onednn", "liger")
    variants = [{**PLAIN, "layers": kind, "compiled": compiled} for compiled in (False, True) for kind in layers]
    parts: list[dict[str, Any]] = []
    for variant in variants:
        if (part := key_part(variant, spec)) not in parts:
            parts.append(part)
    return parts


class StoredStages(Run):
    """A run that only looks. `found`: name of each stage that the store holds -> artifact."""

    def __init__(self, recipe: Recipe) -> None:
        # How many processes train is not in a key, and asking for GPUs would need torch.
        runtime = recipe.runtime.model_copy(update={"gpus": None, "processes": None})
        super().__init__(recipe.model_copy(update={"runtime": runtime}))
        self.found: dict[str, Artifact] = {}
        self.packs: dict[str, Artifact] = {}
        self.models: dict[str, tuple[Path, str]] = {}
        if self.store.root.is_dir():
            self._look()

    def makes(self, kind: str) -> bool:
        return False

    def looked_up(self, name: str, kind: str, artifact: Artifact | None) -> Artifact:
        if artifact is not None:
            self.found[name] = artifact
            return artifact
        if kind in ("evaluate", "delta"):  # nothing depends on them
            return Artifact("", Path(), "", {"facts": {}})
        raise _Missing(name)

    def train(
        self,
        name: str,
        spec: TrainSpec,
        packs: Artifact,
        start: tuple[Path, str],
        cost: float,
        watched: Artifact | None = None,
    ) -> tuple[Path, str]:
        """As a run's, whichever variant it was trained by: finding out which one would be taken now needs torch."""
        from pandallm.pipeline.corpora import train_settings

        inputs = {"packs": packs.digest, "start": start[1], **({"held_out": watched.digest} if watched else {})}
        settings = train_settings(self.recipe, spec)
        if spec.watch is None:
            settings.pop("watch", None)
        for part in _variant_parts(spec):
            artifact = self.store.find(Store.key("train", VERSIONS["train"], settings | part, inputs))
            if artifact is not None:
                self.found[f"train {name}"] = artifact
                return artifact.path / "model", artifact.digest
        raise _Missing(name)

    def plans(self) -> dict[str, tuple[TrainSpec, str, str | None]]:
        """As a run's, without torch: `auto` is resolved by what this machine says of itself."""
        plans: dict[str, tuple[TrainSpec, str, str | None]] = {}
        if scratch := self.recipe.base.scratch:
            plans["base"] = (scratch.train, scratch.train.corpus, None)
        for name, stage in self.recipe.stages.items():
            plans[name] = (stage, stage.corpus, stage.from_)
        gpu = self.recipe.runtime.device != "cpu" and bool(gpus_here())
        auto = "bfloat16" if gpu or has_bfloat16() else "float32"
        return {
            name: (spec.model_copy(update={"dtype": auto}) if spec.dtype == "auto" else spec, corpus, origin)
            for name, (spec, corpus, origin) in plans.items()
        }

    def _write_manifest(self, state: str) -> None:
        pass

    def start_folder(self) -> Path | None:
        """The model that training starts from, where it is there."""
        return self._start[0] if hasattr(self, "_start") else None

    def original_folder(self) -> Path | None:
        """The base before base.extend, where it is there."""
        return self._original[0] if hasattr(self, "_original") else None

    def _look(self) -> None:
        recipe = self.recipe
        corpora = [c for c in recipe.corpora if self._try(lambda c=c: self._corpus(c))]  # type: ignore[misc]
        if self._base_is_small():
            self._try(self.start)
        if not hasattr(self, "_start"):
            return
        self.models = {} if recipe.base.scratch else {"base": self.start()}
        if recipe.base.extend:
            self.models["original"] = self.original()
        for name, (spec, corpus, origin) in self.plans().items():
            if corpus in corpora and self._try(lambda n=name, s=spec, c=corpus: self._pack(n, s, c)):  # type: ignore[misc]
                start = self.models.get(origin) if origin else self.start()
                if start is not None:
                    self._try(lambda n=name, s=spec, c=corpus, a=start: self._train(n, s, c, a))  # type: ignore[misc]
        if recipe.evaluate and all(m in self.models for m in recipe.evaluate.models):
            self._try(self._evaluation)
        r = recipe.release
        if r and r.base in self.models and r.target in self.models:
            from pandallm.pipeline.release import release

            self._try(lambda: release(self, self.models))

    def _try(self, look: Callable[[], Any]) -> bool:
        try:
            look()
        except (_Missing, PandaError, OSError):
            return False
        return True

    def _corpus(self, name: str) -> None:
        files = [f for s in self.recipe.corpora[name].sources for f in self._files(name, s)]
        unknown = FileDigests(self.store.root / "file_digests.json").unknown(files)
        if sum(f.stat().st_size for f in unknown) > READ_BYTES:
            raise _Missing(name)
        sets = [s.dataset for s in self.recipe.corpora[name].sources.values() if s.dataset]
        with _offline() if any(not Path(d.id).is_dir() for d in sets) else nullcontext():
            self.corpus(name)

    def _files(self, corpus: str, source: str) -> list[Path]:
        if self.recipe.corpora[corpus].sources[source].dataset:
            return []
        return source_files(self.recipe, corpus, source, self.variables())

    def _base_is_small(self) -> bool:
        """Whether a base of this machine may be read whole to know whether it was imported."""
        base = self.recipe.base
        if base.gguf:
            from pandallm.model.gguf import find_gguf

            try:
                return find_gguf(base.gguf).stat().st_size <= 4 * READ_BYTES
            except BadInput:
                return False
        folder = Path(base.model or "")
        if not base.model or not folder.is_dir():
            return True
        return sum(f.stat().st_size for f in folder.glob("*") if f.is_file()) <= 4 * READ_BYTES

    def _pack(self, name: str, spec: TrainSpec, corpus: str) -> None:
        self.packs[name] = pack(self, name, spec, corpus)

    def _train(self, name: str, spec: TrainSpec, corpus: str, start: tuple[Path, str]) -> None:
        from pandallm.pipeline.held_out import held_out

        watched = held_out(self, name, spec, corpus)
        self.models[name] = self.train(name, spec, self.packs[name], start, 0.0, watched)

    def _evaluation(self) -> None:
        from pandallm.pipeline.evaluation import evaluate_all

        evaluate_all(self, self.models, 0.0)

    def watched_tokens(self, name: str, spec: TrainSpec, example_tokens: float) -> float:
        """Held-out tokens that an evaluation of stage `name` scores: of its windows where they are there, else of so many documents as
        its settings allow, each as long as the stage's examples; 0 without `watch`, or where nothing says how many they are."""
        if spec.watch is None:
            return 0.0
        if (windows := self.found.get(f"held out {name}")) is not None:
            return float(windows.manifest["facts"]["tokens"])
        named = watched_corpora(spec, self.plans()[name][1])
        corpora = [self.recipe.corpora[c] for c in named if c in self.recipe.corpora]
        return example_tokens * sum(_held_out_documents(c, spec.watch.documents) for c in corpora)

    def rows(self) -> list[dict[str, Any]]:
        """Every stage of the recipe in order: {"name", "kind", "cached", "bytes", "seconds"}; the last two are None where it will run."""
        return [self._row(node.name, node.kind) for node in stage_graph(self.recipe)]

    def corpora_rows(self) -> list[dict[str, Any]]:
        """The same of a recipe that trains nothing: its corpora, as `panda data build` makes them."""
        return [self._row(f"clean {corpus}", "clean") for corpus in self.recipe.corpora]

    def _row(self, name: str, kind: str) -> dict[str, Any]:
        artifact = self.found.get(name)
        files = artifact.manifest["files"].values() if artifact else ()
        return {
            "name": name,
            "kind": kind,
            "cached": artifact is not None,
            "bytes": sum(f["bytes"] for f in files) if artifact else None,
            "seconds": artifact.manifest["seconds"] if artifact else None,
        }


def _held_out_documents(corpus: CorpusSpec, most: int | None) -> int:
    """How many documents a corpus will hold out at most; of a share alone, `most`."""
    each = [source.held_out or corpus.held_out for source in corpus.sources.values()]
    known = sum(h.documents for h in each)
    if most is None:
        return known
    return most if any(h.share for h in each) else min(most, known)

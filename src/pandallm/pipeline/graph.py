"""The stages of a recipe and what each depends on, from the recipe alone: no file is opened, nothing heavy is imported.

A real key (`Store.key`) needs digests of files and of earlier results. Here names of files stand for the files and the identity
of an earlier stage for its result. Two stages of equal identity are one artifact in the store. The opposite does not hold: where
different settings give the same bytes, or a file changes under its name, the store knows better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.pipeline.bases import extended_on, vocabulary_settings
from pandallm.recipe.load import VARIABLE
from pandallm.recipe.spec import Recipe
from pandallm.store import Store
from pandallm.train.spec import TrainSpec


@dataclass(frozen=True)
class StageNode:
    """One stage. `name` is that of the run's manifest; `inputs`: what it reads -> identity of the stage that makes it, or a name."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Equal for equal stages, over recipes and seeds: 32 hexadecimal digits."""
        from pandallm.pipeline.run import VERSIONS

        return Store.key(self.kind, VERSIONS[self.kind], self.settings, self.inputs)


def stage_graph(recipe: Recipe) -> list[StageNode]:
    """The stages of a run of `recipe`, each after those it reads."""
    return _Graph(recipe).nodes


class _Graph:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.nodes: list[StageNode] = []
        self._corpora: dict[str, str] = {}
        self._world, self._texts = "", ""
        if recipe.world:
            self._world = self._add("world", "world", {"world": _plain(recipe.world), "seed": recipe.seed}, {})
            right = _plain(recipe.world, exclude={"wrong_answers", "english_instructions"})
            self._texts = StageNode("world", "world", {"world": right, "seed": recipe.seed}, {}).identity
        self._start()
        models = self._training()
        self._evaluation(models)
        if r := recipe.release:
            self._add(
                f"delta of {r.target}",
                "delta",
                {"base": r.base, "target": r.target},
                {"base": models[r.base], "target": models[r.target]},
            )

    def _add(self, name: str, kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        node = StageNode(name, kind, settings, inputs)
        self.nodes.append(node)
        return node.identity

    # Data -----------------------------------------------------------------------------------------------------------------------

    def _named(self, text: str) -> dict[str, str]:
        """The input that a file pattern is: its text with the recipe's paths in, and the world where it lies in there.

        Wrong answers are in the world's instructions alone: its corpora and questions are the same without them.
        """
        paths = self.recipe.paths
        name = VARIABLE.sub(lambda m: paths.get(m.group(1), m.group(0)), text)
        world = self._texts if text.startswith(("${world}/corpora/", "${world}/questions/")) else self._world
        return {name: world if "${world}" in text else ""}

    def _task(self, name: str) -> dict[str, str]:
        given = self.recipe.tasks.get(name)
        return {f"task:{name}": self._texts, **(self._named(given) if given else {})}

    def _corpus(self, name: str) -> str:
        if name not in self._corpora:
            from pandallm.pipeline.corpora import clean_settings

            spec = self.recipe.corpora[name]
            inputs: dict[str, str] = {}
            for source, s in spec.sources.items():
                for pattern in [s.files] if isinstance(s.files, str) else s.files:
                    inputs |= {f"{source}/{k}": v for k, v in self._named(pattern).items()}
                if s.templates:
                    inputs[f"templates:{source}"] = s.templates.file
            for task in spec.decontaminate.against if spec.decontaminate else ():
                inputs |= self._task(task)
            self._corpora[name] = self._add(f"clean {name}", "clean", clean_settings(name, spec), inputs)
        return self._corpora[name]

    # Models ---------------------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """`start`: the model before any training; `tokenizer`: what its token ids depend on; `original`: before base.extend."""
        base = self.recipe.base
        if scratch := base.scratch:
            corpora = {c: self._corpus(c) for c in scratch.tokenizer.corpora or tuple(self.recipe.corpora)}
            settings = vocabulary_settings(scratch.tokenizer)
            self.tokenizer = self._add("train tokenizer", "tokenizer", settings, corpora)
            settings = {"architecture": _plain(scratch.architecture), "seed": self.recipe.seed}
            self.start = self.original = self._add("initialise base", "init", settings, {"tokenizer": self.tokenizer})
            return
        if base.gguf:
            settings, inputs = {}, {"gguf": str(_plain(base.gguf))}
        elif base.model and Path(base.model).is_dir():
            settings, inputs = {}, {"folder": base.model}
        else:
            settings, inputs = {"model": base.model, "revision": base.revision}, {}
        self.start = self.tokenizer = self.original = self._add("import base", "import", settings, inputs)
        if base.extend:
            corpora = {f"corpus:{c}": self._corpus(c) for c in extended_on(self.recipe)}
            settings = {**vocabulary_settings(base.extend), "seed": self.recipe.seed}
            self.start = self.tokenizer = self._add(
                "extend vocabulary", "extend", settings, {"base": self.original, **corpora}
            )

    def _training(self) -> dict[str, str]:
        """Packs, then training, in the order of a run. Returns model -> identity."""
        from pandallm.pipeline.corpora import pack_settings, train_settings

        recipe = self.recipe
        stages: dict[str, tuple[TrainSpec, str, str | None]] = {}
        if recipe.base.scratch:
            train = recipe.base.scratch.train
            stages["base"] = (train, train.corpus, None)
        stages |= {name: (s, s.corpus, s.from_) for name, s in recipe.stages.items()}
        for _, corpus, _ in stages.values():
            self._corpus(corpus)
        for corpus in recipe.evaluate.bits_per_byte if recipe.evaluate else ():
            self._corpus(corpus)
        packs = {
            name: self._add(
                f"pack {name}",
                "pack",
                pack_settings(recipe, spec, corpus),
                {"corpus": self._corpus(corpus), **self._cut(spec)},
            )
            for name, (spec, corpus, _) in stages.items()
        }
        watched = {name: self._held_out(name, spec, corpus) for name, (spec, corpus, _) in stages.items() if spec.watch}
        models = {} if recipe.base.scratch else {"base": self.start}
        if recipe.base.extend:
            models["original"] = self.original
        for name, (spec, _, origin) in stages.items():
            inputs = {"packs": packs[name], "start": models[origin] if origin else self.start}
            if name in watched:
                inputs["held_out"] = watched[name]
            models[name] = self._add(f"train {name}", "train", train_settings(recipe, spec), inputs)
        return models

    def _held_out(self, name: str, spec: TrainSpec, corpus: str) -> str:
        from pandallm.pipeline.held_out import held_out_settings, watched_corpora

        inputs = {f"corpus:{c}": self._corpus(c) for c in watched_corpora(spec, corpus)}
        settings = held_out_settings(spec, corpus)
        return self._add(f"held out {name}", "held_out", settings, {**inputs, **self._cut(spec)})

    def _cut(self, spec: TrainSpec) -> dict[str, str]:
        """What cuts a stage's text into tokens; a template of the base comes with its tokenizer."""
        name = spec.chat_template
        return {"tokenizer": self.tokenizer} | ({"chat_template": name} if name != "none" else {})

    def _evaluation(self, models: Mapping[str, str]) -> None:
        from pandallm.pipeline.evaluation import NOT_IN_KEY

        e = self.recipe.evaluate
        if not e:
            return
        asked = _plain(e, exclude=NOT_IN_KEY)
        for model in e.models:
            for task in e.tasks:
                settings = {**asked, "name": task, "model": model}
                inputs = {"model": models[model], **self._task(task)}
                self._add(f"evaluate {model} on {task}", "evaluate", settings, inputs)
            if e.bits_per_byte:
                settings = {"bits_per_byte": True, "dtype": e.dtype, "model": model}
                corpora = {f"corpus:{c}": self._corpus(c) for c in e.bits_per_byte}
                self._add(
                    f"evaluate {model} on bits per byte", "evaluate", settings, {"model": models[model], **corpora}
                )


def _plain(spec: Any, exclude: Any = None) -> dict[str, Any]:
    return dict(spec.model_dump(mode="json", exclude=exclude))


def stage_keys(recipe: Recipe) -> dict[str, str]:
    """Name -> identity of every stage of a run of `recipe`, each after those it reads."""
    return {node.name: node.identity for node in stage_graph(recipe)}

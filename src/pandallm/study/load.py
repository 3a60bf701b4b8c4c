"""Read a study file: YAML, types, names. Every mistake becomes one sentence with file, line and field."""

from pathlib import Path

from pydantic import ValidationError

from pandallm.errors import BadInput
from pandallm.recipe.load import Draft, error_sentence, read_recipe
from pandallm.recipe.yaml_lines import Document
from pandallm.spec import nearest
from pandallm.study.spec import StudySpec


class StudyFile:
    """A study as it was written, with the recipe that it is about (not yet changed)."""

    def __init__(self, path: Path, document: Document, spec: StudySpec, recipe: Draft) -> None:
        self.path, self.spec, self.recipe = path, spec, recipe
        self._document = document

    def where(self, *path: str | int) -> str:
        """`file:line: dotted.path`, to begin an error with."""
        line = self._document.line(path)
        place = f"{self._document.name}:{line}" if line else self._document.name
        return f"{place}: {'.'.join(map(str, path))}"


def load_study(path: Path) -> StudyFile:
    """Read a study file and its recipe. Raises BadInput naming file, line and field, and the nearest right name."""
    document = Document.read(path)
    try:
        spec = StudySpec.model_validate(document.data)
    except ValidationError as e:
        raise BadInput(error_sentence(e, document)) from None
    recipe = spec.recipe
    if recipe.endswith((".yaml", ".yml")) or "/" in recipe:
        recipe = str(path.parent / recipe)
    try:
        draft = read_recipe(recipe)
    except BadInput as e:
        line = document.line(["recipe"])
        raise BadInput(f"{document.name}:{line}: recipe: {e}") from None
    study = StudyFile(path, document, spec, draft)
    _check(study)
    return study


def _check(study: StudyFile) -> None:
    """Names that point to other parts of the file: factors, levels, metrics."""
    spec = study.spec
    factors = sorted(spec.factors)
    for name, contrast in spec.contrasts.items():
        at = ("contrasts", name)
        if contrast.factor is not None and contrast.factor not in spec.factors:
            raise BadInput(
                f"{study.where(*at, 'factor')}: there is no factor '{contrast.factor}'.{nearest(contrast.factor, factors)}"
            )
        if spec.metrics and contrast.metric is not None and contrast.metric not in spec.metrics:
            raise BadInput(
                f"{study.where(*at, 'metric')}: there is no metric '{contrast.metric}'.{nearest(contrast.metric, sorted(spec.metrics))}"
            )
        for side in ("a", "b"):
            selection = getattr(contrast, side)
            if isinstance(selection, str) != (contrast.factor is not None):
                what = (
                    "a level of its factor"
                    if contrast.factor
                    else "levels by factor, {FACTOR: LEVEL}, or name a factor"
                )
                raise BadInput(f"{study.where(*at, side)}: give {what}.")
            chosen = {contrast.factor: selection} if isinstance(selection, str) else selection
            for factor, level in chosen.items():
                if factor not in spec.factors:
                    raise BadInput(
                        f"{study.where(*at, side)}: there is no factor '{factor}'.{nearest(str(factor), factors)}"
                    )
                levels = spec.factors[factor].levels
                if levels and str(level) not in levels:
                    raise BadInput(
                        f"{study.where(*at, side)}: factor '{factor}' has no level '{level}'.{nearest(str(level), list(levels))}"
                    )
        if isinstance(contrast.a, dict) and isinstance(contrast.b, dict) and set(contrast.a) != set(contrast.b):
            raise BadInput(f"{study.where(*at)}: both sides must name the same factors; add the missing levels.")
        if contrast.a == contrast.b:
            raise BadInput(f"{study.where(*at)}: both sides are the same; compare two different ones.")

"""Instruction templates in YAML: reading, checking, drawing."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pandallm.data.adapters.base import draw
from pandallm.data.spec import TemplatesSpec
from pandallm.errors import BadInput

FOLDER = Path(__file__).parents[1] / "templates"
VERSION = 1

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Templates:
    """Instruction templates by the placeholder that they hold; `seed` 0 draws by the example's content alone."""

    by_placeholder: Mapping[str, tuple[str, ...]]
    seed: int = 0

    def fill(self, placeholder: str, text: str, key: str) -> str | None:
        """One of the templates that hold `{placeholder}`, drawn by sha256 of seed and `key`, filled with `text`.

        None where no template holds it.
        """
        choices = self.by_placeholder.get(placeholder)
        if not choices:
            return None
        return draw(choices, f"{self.seed}\n{key}" if self.seed else key).replace(f"{{{placeholder}}}", text)


@lru_cache
def own_templates(name: str) -> Templates:
    """The templates that come with pandallm under this name, all placeholders allowed."""
    return _read(FOLDER / f"{name}.yaml", None, 0)


def templates_path(spec: TemplatesSpec, where: str) -> Path:
    """The file of `spec`: a name of the package, or the user's YAML file. Raises BadInput naming `where` if there is none."""
    own = FOLDER / f"{spec.file}.yaml"
    path = own if re.fullmatch(r"\w+", spec.file) and own.is_file() else Path(spec.file)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise BadInput(f"{where}: there are no templates {spec.file}; give a YAML file or one of {known}.")
    return path


def templates_digest(spec: TemplatesSpec, where: str) -> str:
    """sha256 of the file: an input of every stage that reads it. Raises BadInput as `templates_path`."""
    return hashlib.sha256(templates_path(spec, where).read_bytes()).hexdigest()


def load_templates(spec: TemplatesSpec, placeholders: Sequence[str], where: str) -> Templates:
    """The templates of `spec`. Raises BadInput (file and line) for unknown placeholders, none at all, and broken YAML."""
    return _read(templates_path(spec, where), tuple(placeholders), spec.seed)


def _read(path: Path, allowed: tuple[str, ...] | None, seed: int) -> Templates:
    import yaml

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise BadInput(f"{path}:{line}: not valid YAML ({e.problem or e}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: not valid YAML ({str(e).splitlines()[0]}).") from None
    form = "give `version: 1` and `templates:` with a list of texts"
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{path}: not a mapping; {form}.")
    fields = {key.value: value for key, value in root.value}
    for key, _ in root.value:
        if key.value not in ("version", "templates"):
            raise BadInput(f"{path}:{key.start_mark.line + 1}: unknown field {key.value!r}; {form}.")
    version = fields.get("version")
    if version is None or version.value != str(VERSION):
        line = version.start_mark.line + 1 if version else 1
        raise BadInput(f"{path}:{line}: the version must be {VERSION}; {form}.")
    items = fields.get("templates")
    if not isinstance(items, yaml.SequenceNode) or not items.value:
        raise BadInput(f"{path}: no templates; {form}.")
    groups: dict[str, list[str]] = {}
    for item in items.value:
        where = f"{path}:{item.start_mark.line + 1}"
        if not isinstance(item, yaml.ScalarNode):
            raise BadInput(f"{where}: a template must be a text; {form}.")
        found = set(_PLACEHOLDER.findall(item.value))
        known = " or ".join(f"{{{name}}}" for name in allowed or ())
        if allowed and (unknown := sorted(found - set(allowed))):
            raise BadInput(f"{where}: unknown placeholder {{{unknown[0]}}}; this adapter fills {known}.")
        if len(found) != 1:
            raise BadInput(f"{where}: a template must hold exactly one placeholder{(allowed and f', {known}') or ''}.")
        groups.setdefault(found.pop(), []).append(item.value)
    return Templates({name: tuple(texts) for name, texts in groups.items()}, seed)

"""YAML with line numbers: refuses duplicate keys, tells the line of any path in the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pandallm.errors import BadInput


class Document:
    """A parsed YAML mapping that knows the line of every entry."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data: Any = yaml.safe_load(text)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            raise BadInput(
                f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {e.problem or e.context}."
            ) from None
        except yaml.YAMLError as e:  # an unprintable character, for example
            raise BadInput(f"{name}: not valid YAML: {str(e).splitlines()[0]}.") from None
        if self._root is not None:
            self._refuse_duplicates(self._root, ())
        if not isinstance(self.data, dict):
            raise BadInput(
                f"{name}: expected a mapping of fields, found {'nothing' if self.data is None else type(self.data).__name__}."
            )

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Parse a file; BadInput where it is missing or not UTF-8 YAML."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise BadInput(f"{path} does not exist.") from None
        except IsADirectoryError:
            raise BadInput(f"{path} is a folder; give a YAML file.") from None
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not UTF-8 text; save it as UTF-8.") from None

    def _refuse_duplicates(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in seen:
                    where = ".".join((*path, name))
                    raise BadInput(
                        f"{self.name}:{line}: '{where}' is given twice (first on line {seen[name]}); keep one."
                    )
                seen[name] = line
                self._refuse_duplicates(value, (*path, name))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._refuse_duplicates(value, (*path, str(i)))

    def line(self, path: Sequence[str | int]) -> int | None:
        """Line (from 1) of the deepest entry of `path` that the file holds; None where its first part is absent."""
        node, line = self._root, None
        for part in path:
            found = None
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if str(key.value) == str(part):
                        found, line = value, key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                found = node.value[part]
                line = found.start_mark.line + 1
            if found is not None:  # a part that is not there is pydantic's own (the tag of a union): pass over it
                node = found
        return line

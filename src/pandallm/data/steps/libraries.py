"""Optional libraries of the clean steps: found, loaded, and named with their version."""

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from pandallm.errors import BadInput

#: What pip installs for each library.
EXTRA = 'pip install "pandallm[clean]"'


def check_library(module: str, where: str) -> None:
    """Raise BadInput that begins with `where` and gives the pip command if `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise BadInput(f"{where} needs the library {module}, which is not installed; install it with: {EXTRA}")


def load_library(module: str, where: str) -> Any:
    """The module; raises BadInput as `check_library` does."""
    check_library(module, where)
    return importlib.import_module(module)


def library_version(distribution: str) -> str:
    """The installed version; `absent` where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"

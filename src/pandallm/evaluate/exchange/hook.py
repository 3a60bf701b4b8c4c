"""So that `lm_eval --model pandallm` works by itself: lm_eval reads no entry points, so Python's start-up has to help.

`write_hook` puts one line into this environment's site-packages. At Python's start it adds a finder that waits for
`lm_eval.models` and registers our model behind it; nothing of pandallm, torch or lm_eval is loaded before.
"""

import importlib.util
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

FILE = "pandallm_lm_eval.pth"
#: An environment from which pandallm was removed must still start.
LINE = (
    "import importlib.util; "
    "importlib.util.find_spec('pandallm') and __import__('pandallm.evaluate.exchange.hook', fromlist=['wait']).wait()\n"
)


class _Waiting(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "lm_eval.models":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            inner = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                from pandallm.evaluate.exchange import register

                inner(module)
                register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def wait() -> None:
    """Register our model as soon as something imports `lm_eval.models`."""
    sys.meta_path.insert(0, _Waiting())


def write_hook(folder: Path | None = None) -> Path:
    """Write the line into `folder` (default: this environment's site-packages); returns the file."""
    path = (folder or Path(sysconfig.get_path("purelib"))) / FILE
    path.write_text(LINE, encoding="utf-8")
    return path


def remove_hook(folder: Path | None = None) -> Path:
    """Remove what `write_hook` wrote, where it is there; returns where it was."""
    path = (folder or Path(sysconfig.get_path("purelib"))) / FILE
    path.unlink(missing_ok=True)
    return path

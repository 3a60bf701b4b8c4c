"""What is kept of a finished study: its numbers and tables, no text of a question or a model, no path of the machine that ran it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.report.study_text import study_latex, study_markdown
from pandallm.store import read_json, write_json, write_text
from pandallm.study.folder import STUDY
from pandallm.study.results import RESULTS, compute_results

#: The folders of a path that begins at the root, as an error may name it; its last part stays.
_FOLDERS = re.compile(r"(?<![\w.:/~])~?/(?:[^\s/'\"`]+/)+")


def publish_study(folder: Path, into: Path) -> Path:
    """Write study.json, results.json, report.md and report.tex of a study's folder to `into`/NAME; returns that folder.

    The numbers are computed anew from the runs. Raises BadInput where `folder` is no study's or no run is complete.
    """
    results = without_paths(compute_results(folder))
    if not results["runs"].get("complete"):
        raise BadInput(f"{folder}: no run of this study is complete yet, so there is nothing to publish.")
    target = into / results["name"]
    write_json(target / STUDY, without_paths(read_json(folder / STUDY)))
    write_text(target / "report.md", study_markdown(results))
    write_text(target / "report.tex", study_latex(results))
    write_json(target / RESULTS, results)
    return target


def without_paths(value: Any) -> Any:
    """The same JSON, the paths in its texts cut to their last part."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_paths(v) for key, v in value.items()}
    if isinstance(value, Sequence):
        return [without_paths(v) for v in value]
    return value


def published(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, results) of each study: of `folders` that hold results.json, and of those right below them; in the order of names.

    Raises BadInput for a folder that is not there, and where two studies have the same name.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder; give folders of `panda study publish`.")
        for path in [folder / RESULTS] if (folder / RESULTS).is_file() else sorted(folder.glob(f"*/{RESULTS}")):
            results = read_json(path)
            other, _ = found.setdefault(results["name"], (path.parent, results))
            if other.resolve() != path.parent.resolve():
                raise BadInput(f"{path.parent} and {other} are both of study '{results['name']}'; give one of them.")
    return [found[name] for name in sorted(found)]

"""The blueprint: what studies say a builder should do, written from their results. docs/blueprint.md is made by it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandallm.report.blueprint import PAGES, render_blueprint, subject_of
from pandallm.store import write_text
from pandallm.study.load import load_study
from pandallm.study.publish import published


def blueprint_pages(results: Sequence[Path], studies: Path | None, out: Path) -> dict[Path, str]:
    """The pages, by file, that lie in `out`: English and Chinese.

    results: folders of published studies, or folders of such folders. studies: a folder of study files; those without results are told
    as not run. Raises BadInput as `published` and `load_study` do.
    """
    files = {} if studies is None else {load_study(p).spec.name: p for p in sorted(studies.glob("*.yaml"))}
    told: list[dict[str, Any]] = []
    for folder, found in published(results):
        file = files.pop(found["name"], None)
        told.append({"results": found, "link": _link(folder / "report.md", out), "file": file and _link(file, out)})
    for path in files.values():
        spec = load_study(path).spec
        unrun = {"name": spec.name, "description": spec.description, "description_zh": spec.description_zh}
        unrun["subject"] = subject_of(spec.subject, next(iter(spec.factors.values())).kind)
        told.append({"results": None, **unrun, "file": _link(path, out)})
    return {out / name: render_blueprint(told, language) for language, name in PAGES.items()}


def write_blueprint(results: Sequence[Path], studies: Path | None, out: Path) -> list[Path]:
    """Write the pages into `out`; returns their files."""
    pages = blueprint_pages(results, studies, out)
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


def _link(path: Path, out: Path) -> str:
    """A path as a link of a page in `out`."""
    return Path(os.path.relpath(path, out)).as_posix()

"""Write what a study found: results.json, report.md, report.tex."""

from pathlib import Path
from typing import Any

from pandallm.report.study_text import study_latex, study_markdown
from pandallm.store import write_text
from pandallm.study.results import RESULTS, write_results


def write_study_report(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Compute the results of a study's folder, finished or not, and write them; returns them and the files. Raises BadInput."""
    results = write_results(folder)
    markdown, latex = folder / "report.md", folder / "report.tex"
    write_text(markdown, study_markdown(results))
    write_text(latex, study_latex(results))
    return results, [folder / RESULTS, markdown, latex]

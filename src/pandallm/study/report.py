"""Write what a study found: results.json, report.html, report.md, report.tex."""

from pathlib import Path
from typing import Any

from pandallm.report.study import render_study
from pandallm.report.study_text import study_latex, study_markdown
from pandallm.store import write_text
from pandallm.study.answers import answers_by_seed, run_reports
from pandallm.study.results import RESULTS, write_results


def write_study_report(folder: Path, *, text: bool = True) -> tuple[dict[str, Any], list[Path]]:
    """Compute the results of a study's folder, finished or not, and write them; returns them and the files. Raises BadInput.

    `text=False` leaves the texts of questions, options and completions out of the page, and the links to the runs' reports; the other
    files never hold any.
    """
    results = write_results(folder)
    page, markdown, latex = (folder / f"report.{ending}" for ending in ("html", "md", "tex"))
    links = run_reports(folder, results) if text else {}  # the runs' own reports may hold texts
    write_text(page, render_study(results, answers_by_seed(folder, results), links, with_text=text))
    write_text(markdown, study_markdown(results))
    write_text(latex, study_latex(results))
    return results, [page, markdown, latex, folder / RESULTS]

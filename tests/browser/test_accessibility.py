"""Every kind of page under axe-core: no serious finding, in light and dark, on a desk and on a phone, in both languages."""

from importlib.resources import files
from pathlib import Path

import pytest

from pandallm.evaluate.spec import CompareSpec
from pandallm.pipeline.compare import compare_folders
from pandallm.pipeline.compare_runs import report_runs
from pandallm.report.answers import render
from pandallm.report.write import write_report
from pandallm.study.report import write_study_report
from tests.browser.conftest import Browser, require
from tests.evaluate.compare_example import write_models
from tests.report.example_run import write_example_run
from tests.report.example_runs import write_finished_run
from tests.report.test_answers import example
from tests.study.fake import fake_study

KINDS = ("report", "runs", "answers", "compare", "study")


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script, from the package that carries it."""
    require("axe_core_python", "axe-core-python")
    return (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=KINDS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "page.html"
    if request.param == "report":
        write_report(write_example_run(folder / "run", steps=8), path)
    elif request.param == "runs":
        runs = [
            write_finished_run(folder / f"kite-seed{k}", lambda i, k=k: i % (k + 1) > 0, seed=k, bits=1 + k / 10)
            for k in (1, 2, 3)
        ]
        report_runs(runs, path)
    elif request.param == "answers":
        path.write_text(render(*example(["m-one", "m-two"], judged=True)), encoding="utf-8")
    elif request.param == "compare":
        folders = write_models(folder, 20, completion="我选这个")
        compare_folders([str(f) for f in folders], CompareSpec(published=True), path)
    else:
        study = fake_study(
            folder / "study", lambda level, _: 0.5 if level == "low" else 0.6, lambda *_: 1.0, questions=40
        )
        (study / "arms" / "dose-low-seed1" / "report.html").write_text("a report", encoding="utf-8")
        write_study_report(study)[1][0].rename(path)
    return path


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_nothing_serious(browser: Browser, page: Path, axe: str, look: str) -> None:
    browser.scheme("dark" if look == "dark" else "light")
    try:
        browser.open(page, width=390 if look == "phone" else 1200, fragment="#zh" if look == "dark" else "")
        browser.wait("return !document.querySelector('#unpacking:not([hidden])')")
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        # Inside the page's own script policy: WebDriver's scripts are not the page's.
        found = browser.session.execute_async_script(
            axe
            + """
            const done = arguments[arguments.length - 1];
            axe.run(document, {resultTypes: ["violations"]}).then((result) => done(
              result.violations.map((v) => [v.impact, v.id, v.nodes.length, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + " " + (n.any[0] ? n.any[0].message : ""))])
            ), (error) => done([["critical", "axe itself", 1, [String(error)]]]));
            """
        )
    finally:
        browser.scheme("")
    assert [f for f in found if f[0] in ("serious", "critical")] == []


def test_axe_is_at_work(browser: Browser, axe: str, tmp_path: Path) -> None:
    """A page with a known fault is found out, so that an empty list above means something."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><title>x</title><body><p style="color:#ccc;background:#fff">faint</p><input>', encoding="utf-8"
    )
    browser.open(bad)
    found = browser.session.execute_async_script(
        axe
        + "const done = arguments[arguments.length - 1]; axe.run(document).then((r) => done(r.violations.map((v) => v.id)))"
    )
    assert {"color-contrast", "html-has-lang", "label"} <= set(found)

"""The run's report and the page of answers in a real browser: language, links, hostile text, no request."""

from pathlib import Path

import pytest

from pandallm.report.answers import render
from pandallm.report.write import write_report
from tests.browser.conftest import Browser
from tests.report.example_run import write_example_run
from tests.report.test_answers import example

HOSTILE = "</script><script>document.title='owned'</script><img src=https://example.invalid/x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module", params=["report", "answers"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "report":
        return Path(write_report(write_example_run(folder / "run", hostile=HOSTILE)))
    path = folder / "answers.html"
    path.write_text(render(*example(["m-one", "m-two"], judged=True)), encoding="utf-8")
    return path


def test_hostile_text_does_nothing_and_no_request_is_made(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert "owned" not in browser.session.title
    assert browser.problems() == []


def test_the_language_is_switched_and_kept_in_the_address(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return document.documentElement.lang") == "en"
    english = browser.texts("h2")
    browser.one("[data-set='zh']").click()
    assert browser.run("return [document.documentElement.lang, location.hash]") == ["zh-CN", "#zh"]
    assert browser.texts("h2") != english
    assert browser.one("[data-set='zh']").get_attribute("aria-pressed") == "true"
    browser.open(page, fragment="#zh")
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert browser.problems() == []


def test_a_report_turns_its_pages_of_questions(browser: Browser, tmp_path: Path) -> None:
    browser.open(Path(write_report(write_example_run(tmp_path / "run", questions=30))))
    first = browser.texts("#list article, #list > *")
    browser.run("document.querySelector(\"#pager [data-step='1']\").click()")  # far below the screen
    assert browser.texts("#pager span")[0].startswith(("Page 2", "page 2"))
    assert browser.texts("#list article, #list > *") != first
    assert browser.problems() == []


def test_a_phone_has_no_sideways_scroll(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=800)
    width = browser.run("return document.documentElement.scrollWidth")
    assert isinstance(width, int)
    assert width <= 390

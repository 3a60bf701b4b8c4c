"""The run's report and the page of answers in a real browser: language, links, hostile text, no request."""

from pathlib import Path

import pytest

from pandallm.report.answers import render
from pandallm.report.write import write_report
from pandallm.store import read_jsonl
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
    browser.wait("return document.querySelectorAll('#list article').length === 20")
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


def found_after(browser: Browser, script: str, *arguments: object) -> list[str]:
    """What the line above the questions says after a filter was set."""
    browser.run(
        script + "; document.getElementById('filters').dispatchEvent(new Event('input', {bubbles: true}))", *arguments
    )
    return browser.texts("#found")


def test_questions_are_searched_and_filtered(browser: Browser, tmp_path: Path) -> None:
    browser.open(Path(write_report(write_example_run(tmp_path / "run", questions=30, hostile=HOSTILE))))
    browser.wait("return document.querySelectorAll('#list article').length === 20")
    assert browser.texts("#found, #unpacking, #too-old") == ["30 questions"]
    search = "document.querySelector('[name=search]').value = arguments[0]"
    assert found_after(browser, search, "facts-zh/7") == ["1 questions"]
    card = browser.texts("#list article")[0]
    assert HOSTILE in card
    right = browser.one("#list article li.right").text
    assert right.startswith("D")
    assert right.endswith("✓")
    assert "listed · generated\tB ✗\t∅ ✗\tD ✓" in card
    assert found_after(browser, search, "赵敏 （6）") == ["1 questions"]
    assert found_after(browser, search, "no such words") == ["0 questions"]
    assert found_after(browser, search, "答案大概")[0] == "30 questions"  # what models wrote
    choices: dict[tuple[str, str, str], set[int | None]] = {}
    for row in read_jsonl(tmp_path / "run" / "rows.jsonl"):
        choices.setdefault((row["id"], row["prompt"], row["method"]), set()).add(row["choice"])
    disputed = {identity for (identity, *_), chosen in choices.items() if len(chosen) > 1}
    disagree = search + "; document.querySelector('[name=disagree]').checked = true"
    assert found_after(browser, disagree, "") == [f"{len(disputed)} questions"]
    assert browser.problems() == []


def test_a_browser_that_cannot_unpack_says_so(browser: Browser, tmp_path: Path) -> None:
    path = Path(write_report(write_example_run(tmp_path / "run", questions=3, steps=3)))
    added = browser.session.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        browser.open(path)
        browser.wait("return !document.getElementById('too-old').hidden")
        assert browser.texts("#too-old")[0].startswith("This browser cannot unpack")
        assert browser.texts("#list article") == []
    finally:
        browser.session.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_print_opens_nothing_and_hides_controls(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.all("nav, .switch, #filters, #pager") == []
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth") is True
    finally:
        browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

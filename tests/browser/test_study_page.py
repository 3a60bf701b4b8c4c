"""A study's page in a real browser: no request, no script of the data's, both languages, a phone, names for every control."""

import itertools
import time
from pathlib import Path

import pytest

from pandallm.store import read_jsonl
from pandallm.study.report import write_study_report
from tests.browser.conftest import Browser
from tests.study.fake import fake_study

HOSTILE = "</script><script>document.title='owned'</script><img src=https://example.invalid/x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fake_study(
        tmp_path_factory.mktemp("study"),
        lambda level, seed: {"0": 0.4, "0.25": 0.5, "0.5": 0.55}[level] + 0.01 * (seed % 2),
        lambda level, seed: {"0": 1.0, "0.25": 0.95, "0.5": 0.97}[level] * (1 + 0.02 * seed),
        levels=("0", "0.25", "0.5"),
        name="hostile",
        claim=HOSTILE,
        failed=(("0.5", 2),),
        question=HOSTILE,
        questions=45,
    )
    (folder / "arms" / "dose-0-seed1" / "report.html").write_text("a report", encoding="utf-8")
    return write_study_report(folder)[1][0]


def test_nothing_is_asked_of_the_network_and_no_text_becomes_script(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.session.title == "hostile · pandallm study"
    assert browser.problems() == []
    assert HOSTILE in browser.texts("tbody th")[0]
    browser.wait("return document.querySelectorAll('#list article').length === 20")
    assert HOSTILE in browser.texts("#list article .q")[0]
    assert browser.run("return document.querySelectorAll('img, iframe, link, main script').length") == 0
    assert browser.session.title == "hostile · pandallm study"
    assert browser.problems() == []


def choose(browser: Browser, name: str, number: int) -> None:
    """Choose entry `number` of a select by the keyboard's event, as a person would cause it."""
    browser.run(
        "const s = document.querySelector(`[name='${arguments[0]}']`); s.selectedIndex = arguments[1]; s.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        number,
    )


def test_questions_of_one_seed_are_searched_with_every_arms_answer(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait("return document.querySelectorAll('#list article').length === 20")
    assert browser.texts("#found") == ["45 questions"]
    assert browser.texts("[name=seed]")[0].split("\n") == [f"seed {n}" for n in range(1, 6)]
    browser.one("[name=search]").send_keys("第44问")
    browser.wait("return document.querySelectorAll('#list article').length === 1")
    assert browser.texts("#list article .q")[0].startswith("世界1第44问")
    assert browser.texts("#list article thead th")[1:] == ["dose-0", "dose-0.25", "dose-0.5"]
    choose(browser, "seed", 1)  # the search stays, the arm that failed has no column
    browser.wait("return document.querySelector('#list .q').innerText.startsWith('世界2第44问')")
    assert browser.texts("#found") == ["1 questions"]
    assert browser.texts("#list article thead th")[1:] == ["dose-0", "dose-0.25"]
    assert browser.texts("#too-old, #unpacking") == []
    browser.one("[data-set=zh]").click()
    assert browser.texts("[name=seed]")[0].split("\n")[1] == "种子 2"
    assert browser.run("return document.querySelector('[name=seed]').selectedIndex") == 1
    assert browser.texts("#found") == ["1 题"]
    rows = [r for r in read_jsonl(page.parent / "arms" / "dose-0.25-seed2" / "rows.jsonl") if r["model"] == "tuned"]
    right = next(r["correct"] for r in rows if r["id"] == "q44")
    assert ("✓" if right else "✗") in browser.texts("#list article tbody td")[2]
    assert browser.problems() == []


def test_a_run_with_a_report_of_its_own_is_linked(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return [...document.querySelectorAll('main a')].map((a) => a.href)") == [
        (page.parent / "arms" / "dose-0-seed1" / "report.html").resolve().as_uri()
    ]
    browser.one("main a").click()
    browser.wait("return document.body.innerText === 'a report'")


def test_print_leaves_the_questions_out(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait("return document.querySelectorAll('#list article').length === 20")
    browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.texts("#list, #filters, nav, .switch") == []
        assert browser.texts(".print-only")[0].startswith("The questions are left out in print")
        assert len(browser.texts("figure")) > 2
    finally:
        browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_ten_thousand_questions_open_within_two_seconds(browser: Browser, tmp_path: Path) -> None:
    folder = fake_study(
        tmp_path, lambda level, _: 0.4 if level == "low" else 0.6, lambda *_: 1.0, seeds=1, questions=10_000
    )
    path = write_study_report(folder)[1][0]
    assert path.stat().st_size < 3_000_000
    began = time.monotonic()
    browser.open(path)
    browser.wait("return document.querySelectorAll('#list article').length === 20")
    assert time.monotonic() - began < 2
    assert browser.texts("#found") == ["10,000 questions"]


def test_the_language_switch_changes_every_fixed_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.texts("h2")[:2] == ["Claims", "Dose and response"]
    english = len(browser.texts(".chart"))
    browser.one("[data-set=zh]").click()
    assert browser.texts("h2")[:2] == ["论断", "剂量与反应"]
    assert len(browser.texts(".chart")) == english > 2
    assert browser.run("return document.documentElement.lang") == "zh-CN"


def test_a_phone_scrolls_down_only(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=840)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth") is True
    assert (
        browser.run(
            "return [...document.querySelectorAll('.chart svg')].every((s) => s.getBoundingClientRect().width <= 390)"
        )
        is True
    )


def test_what_a_screen_reader_needs_is_there(browser: Browser, page: Path) -> None:
    """Charts have names, tables headers, wide tables can be reached by the keyboard, headings go in order."""
    browser.open(page)
    assert (
        browser.run("return [...document.querySelectorAll('[role=img]')].every((e) => e.getAttribute('aria-label'))")
        is True
    )
    assert (
        browser.run("return [...document.querySelectorAll('table')].every((t) => t.querySelector('thead th'))") is True
    )
    assert browser.run("return [...document.querySelectorAll('.scroll')].every((e) => e.tabIndex === 0)") is True
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert isinstance(levels, list)
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert (
        browser.run(
            "return new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === document.querySelectorAll('[id]').length"
        )
        is True
    )

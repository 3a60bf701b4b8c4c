"""A study's page in a real browser: no request, no script of the data's, both languages, a phone, names for every control."""

import itertools
from pathlib import Path

import pytest

from pandallm.report.study import render_study
from pandallm.study.results import compute_results
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
    )
    path = folder / "report.html"
    path.write_text(render_study(compute_results(folder)), encoding="utf-8")
    return path


def test_nothing_is_asked_of_the_network_and_no_text_becomes_script(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.session.title == "hostile · pandallm study"
    assert browser.problems() == []
    assert HOSTILE in browser.texts("tbody th")[0]


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

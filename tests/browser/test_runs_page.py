"""The page of several runs in a real browser: no request, no script of the data's, both languages, a phone, the keyboard."""

import itertools
from pathlib import Path

import pytest

from pandallm.pipeline.compare_runs import report_runs
from pandallm.report.write import write_report
from tests.browser.conftest import Browser
from tests.report.example_runs import write_finished_run

HOSTILE = "</script><script>document.title='owned'</script><img src=https://example.invalid/x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    names = ("kite-of-one-stage-seed1", "kite-of-two-stages-seed1", HOSTILE.replace("/", "-"))
    runs = [
        write_finished_run(root / n, lambda i, k=k: i % (k + 2) > 0, seed=k, bits=2.0 - k / 10, text=HOSTILE)
        for k, n in enumerate(names)
    ]
    write_report(runs[2])
    return report_runs(runs, root / "page" / "runs.html")[1]


def test_nothing_is_asked_of_the_network_and_no_text_becomes_script(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.session.title.endswith(f"{HOSTILE.replace('/', '-')} · pandallm report")
    assert browser.problems() == []
    assert browser.run("return document.querySelectorAll('img, iframe, link, main script').length") == 0
    assert f"An abacus{HOSTILE}" in browser.one("#machines ~ .scroll").text


def test_the_language_switch_changes_every_fixed_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    english = browser.texts("h2")
    charts = len(browser.texts(".chart"))
    browser.one("[data-set=zh]").click()
    chinese = browser.texts("h2")
    assert not set(english) & set(chinese)
    assert chinese[:2] == ["主要结果", "得分"]
    assert len(browser.texts(".chart")) == charts == 3
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    browser.open(page, fragment="#zh/recipes")
    assert browser.run("return scrollY > 300") is True


def test_a_link_leads_to_the_runs_own_page(browser: Browser, page: Path) -> None:
    browser.open(page)
    (link,) = browser.all("#headline ~ .plots a")
    link.click()
    browser.wait("return document.title === 'kite · pandallm'")


def test_a_phone_scrolls_down_only_and_wide_tables_are_reached_by_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=840)
    assert browser.run("return document.documentElement.scrollWidth") == 390
    assert (
        browser.run(
            "return [...document.querySelectorAll('.chart svg')].every((s) => s.getBoundingClientRect().width <= 390)"
        )
        is True
    )
    # Plots are laid out anew, tables scroll within themselves.
    assert (
        browser.run("return [...document.querySelectorAll('.plots')].every((e) => e.scrollWidth <= e.clientWidth)")
        is True
    )
    wide = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"return {wide}.length > 2 && {wide}.every((e) => e.tabIndex === 0)") is True
    reached = []
    for _ in range(40):
        browser.session.switch_to.active_element.send_keys("\t")
        reached.append(browser.run("return document.activeElement.className || document.activeElement.tagName"))
    assert reached.count("scroll") >= 4
    browser.run("document.querySelector('#bpb ~ .scroll').focus()")
    for _ in range(4):
        browser.session.switch_to.active_element.send_keys("\ue014")  # arrow right
    browser.wait("return document.querySelector('#bpb ~ .scroll').scrollLeft > 0")


def test_headings_go_in_order_and_tables_have_heads(browser: Browser, page: Path) -> None:
    browser.open(page)
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert isinstance(levels, list)
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert (
        browser.run("return [...document.querySelectorAll('table')].every((t) => t.querySelector('thead th'))") is True
    )

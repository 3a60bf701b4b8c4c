"""The comparison page in a real browser: search, filters, languages, hostile text, ten thousand questions, a phone, print."""

import base64
import time
from pathlib import Path

import pytest

from pandallm.evaluate.spec import CompareSpec
from pandallm.pipeline.compare import compare_folders
from tests.browser.conftest import Browser
from tests.evaluate.compare_example import question, rows_of, write_folder, write_models

HOSTILE = "</script><script>document.title='owned'</script><img src=https://example.invalid/x onerror=\"document.title='owned'\">"


def wait_for(condition, seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.03)


def choose(browser: Browser, name: str, number: int) -> None:
    """Choose entry `number` of a select by the keyboard's event, as a person would cause it."""
    browser.run(
        "const s = document.querySelector(`[name='${arguments[0]}']`); s.selectedIndex = arguments[1]; s.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        number,
    )


def found(browser: Browser) -> str:
    return browser.one("#found").text


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    folders = write_models(root, 40, completion="我选这个")
    return compare_folders([str(f) for f in folders], CompareSpec(published=True), root / "compare.html")[1]


def test_the_search_box_finds_texts_ids_and_completions(browser: Browser, page: Path) -> None:
    browser.open(page)
    # `tuned` differs from `base` on the odd questions that do not end in 9, `other` from `base` on question 4.
    assert found(browser) == "17 questions in 16 passages"
    box = browser.one("[name=search]")
    box.send_keys("第4天")  # the passage of the questions 8 and 9, of which nobody disagrees on either
    wait_for(lambda: found(browser) == "0 questions in 0 passages")
    assert browser.texts("#list article") == []
    box.clear()
    box.send_keys("第3天 第7问")  # both words
    wait_for(lambda: found(browser) == "1 questions in 1 passages")
    assert browser.texts("#list article .q") == ["第7问：小店卖出了几个苹果？"]
    box.clear()
    box.send_keys("我选这个")
    wait_for(lambda: found(browser) == "17 questions in 16 passages")
    box.clear()
    box.send_keys("q13")
    wait_for(lambda: browser.texts("#list article .q") == ["第13问：小店卖出了几个苹果？"])
    assert browser.problems() == []


def test_filters_by_prompt_and_by_who_is_right(browser: Browser, page: Path) -> None:
    browser.open(page)
    choose(browser, "view", 1)  # text: the only prompt under which `other` differs from `base`
    choose(browser, "model-2", 2)  # other is wrong
    choose(browser, "model-0", 1)  # base is right
    wait_for(lambda: browser.texts("#list article .q") == ["第4问：小店卖出了几个苹果？"])
    choose(browser, "view", 2)
    wait_for(lambda: found(browser) == "0 questions in 0 passages")
    choose(browser, "model-0", 2)  # both wrong, tuned right
    choose(browser, "model-1", 1)
    wait_for(lambda: found(browser) == "16 questions in 16 passages")
    choose(browser, "task", 1)
    wait_for(lambda: found(browser) == "16 questions in 16 passages")


def test_a_card_shows_options_answer_choices_and_scores(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.one("[name=search]").send_keys("q13")
    wait_for(lambda: len(browser.texts("#list article")) == 1)
    card = browser.all("#list article")[0]
    assert [o.text for o in card.find_elements("css selector", "ol li")] == ["A6个", "B7个 ✓", "C8个", "D9个"]
    assert "text · likelihood C ✗ B ✓ C ✗" in card.text
    assert "letter · generated C ✗ B ✓ C ✗" in card.text
    assert "第6天" not in card.text  # the passage is folded away, above the card
    passage = browser.all("#list .passage-group > details > summary")[0]
    passage.click()
    assert browser.texts("#list .passage") == ["第6天，小店卖出了9个苹果。"]
    details = card.find_elements("css selector", "details > summary")
    assert [d.text for d in details] == ["Score of each option", "What the models wrote"]
    for d in details:
        d.click()
    assert "−1.25" in card.text.replace("-", "−")
    assert "我选这个" in card.text


def test_the_languages_switch_and_stay_in_the_address(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert "Where models disagree" in browser.texts("h2")
    browser.one("[data-set=zh]").click()
    assert "回答不一致的题目" in browser.texts("h2")
    assert "Where models disagree" not in browser.texts("h2")
    assert found(browser) == "17 题，16 篇材料"
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert browser.one("[name=search]").get_attribute("placeholder") == "检索文本或编号"
    assert str(browser.session.current_url).endswith("#zh")
    browser.open(page, fragment="#zh/questions")
    assert found(browser) == "17 题，16 篇材料"
    assert browser.run("return scrollY > 300") is True


def test_hostile_text_is_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    folders = write_models(tmp_path, 8, ("base", "tuned"), extra=HOSTILE, completion=HOSTILE)
    rows = rows_of(HOSTILE, [question(i, extra=HOSTILE) for i in range(8)], lambda i, _: i < 2)
    rows += rows_of(
        HOSTILE, [question(i, extra=HOSTILE) for i in range(8)], lambda i, _: i < 2, ("letter",), "generation", HOSTILE
    )
    folders.append(write_folder(tmp_path / "third", rows, [question(i, extra=HOSTILE) for i in range(8)]))
    out = compare_folders([str(f) for f in folders], CompareSpec(), tmp_path / "compare.html")[1]
    browser.open(out)
    for summary in browser.all("#list summary"):
        summary.click()
    assert HOSTILE in browser.one("#list").text
    assert HOSTILE in browser.one("#scores ~ .plots").text  # a model's name
    browser.one("[data-set=zh]").click()
    assert "owned" not in str(browser.session.title.replace(HOSTILE, ""))
    assert browser.run("return document.querySelectorAll('img, iframe, link, main script').length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.problems() == []


def test_ten_thousand_questions_open_within_two_seconds(browser: Browser, tmp_path: Path) -> None:
    questions = [question(i) for i in range(10_000)]
    folders = [
        write_folder(tmp_path / name, rows_of(name, questions, right, ("letter",)), questions)
        for name, right in (("even", lambda i, _: i % 2 == 0), ("odd", lambda i, _: i % 2 == 1))
    ]
    out = compare_folders([str(f) for f in folders], CompareSpec(), tmp_path / "compare.html")[1]
    assert out.stat().st_size < 4_000_000
    started = time.monotonic()
    browser.open(out)
    assert time.monotonic() - started < 2
    assert found(browser) == "10,000 questions in 5,000 passages"
    assert len(browser.all("#list .passage-group")) == 20  # the rest is drawn when asked for
    browser.one("#more").send_keys("\n")
    assert len(browser.all("#list .passage-group")) == 40
    assert browser.run("return document.activeElement === document.querySelectorAll('.passage-group')[20]") is True
    started = time.monotonic()
    browser.one("[name=search]").send_keys("q9999")
    wait_for(lambda: found(browser) == "1 questions in 1 passages")
    assert time.monotonic() - started < 2
    assert browser.problems() == []


def test_a_phone_has_no_sideways_scroll_and_keyboard_reaches_everything(browser: Browser, page: Path) -> None:
    browser.open(page, width=390, height=844)
    assert browser.run("return document.documentElement.scrollWidth") == 390
    wide = browser.run(
        "return [...document.querySelectorAll('main .plots, main .card, main form *')].filter((e) => e.offsetParent && e.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0
    assert (
        browser.run(
            "return [...document.querySelectorAll('.plots')].every((e) => !e.offsetParent || e.scrollWidth <= e.clientWidth)"
        )
        is True
    )
    reached = []
    for _ in range(60):
        browser.session.switch_to.active_element.send_keys("\t")
        reached.append(
            browser.run(
                "const e = document.activeElement; return e.name || e.dataset.set || e.getAttribute('href') || e.tagName"
            )
        )
    for name in ("en", "zh", "#questions", "search", "task", "view", "model-0", "model-2", "SUMMARY"):
        assert name in reached


def test_print_holds_the_tables_and_the_questions_listed(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.all("#filters") == []
        assert browser.all("nav") == []
        assert len(browser.all("#list article")) == 17
        assert len(browser.all("#differences ~ .plots tbody tr")) > 3
    finally:
        browser.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = browser.session.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")


def test_without_scripts_the_numbers_are_there(browser: Browser, page: Path) -> None:
    browser.session.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(page)
        text = browser.one("main").text
    finally:
        browser.session.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "tuned is better than base" in text
    assert "need JavaScript" in text

"""The comparison page as a document; what needs a browser is tested in tests/browser."""

import base64
import hashlib
import re
import string
from pathlib import Path

import pytest

from pandallm.evaluate.spec import CompareSpec
from pandallm.pipeline.compare import compare_folders
from pandallm.report.compare import Scale
from pandallm.report.compare_questions import disagreements
from pandallm.report.compare_text import SCRIPT_KEYS, TEXT
from tests.evaluate.compare_example import question, rows_of, write_folder, write_models
from tests.report.test_write import Page

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;\u2028{{ 7*7 }}"


def make(root: Path, *, with_text: bool = True, extra: str = "", spec: CompareSpec | None = None) -> Page:
    folders = write_models(root, 40, extra=extra, completion="模型说" + extra)
    out = compare_folders([str(f) for f in folders], spec or CompareSpec(), root / "compare.html", with_text=with_text)[
        1
    ]
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return make(tmp_path_factory.mktemp("page"), spec=CompareSpec(published=True))


def test_numbers_verdicts_groups_and_unique_ids(page: Page) -> None:
    assert {"summary", "scores", "differences", "published", "questions", "method"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for shown in (
        "tuned is better than base",
        "tuned 优于 base",
        "90.0%",
        "+40.0",
        "no difference found (smallest difference this could find:",
        "未发现差异",
        "40 questions in 20 passages; guessing 25.0%",
        "not shown: the paper has no score of this task",
        "< 0.001",
    ):
        assert shown in page.text
    marked = [a["data-l"] for _, a in page.elements if "data-l" in a]
    assert marked.count("en") == marked.count("zh") > 80


def test_every_text_has_both_languages_with_the_same_holes() -> None:
    for key, (en, zh) in TEXT.items():
        holes = [{name for _, name, _, _ in string.Formatter().parse(s) if name} for s in (en, zh)]
        assert holes[0] == holes[1], key
        assert en, key
        assert zh, key
    assert set(SCRIPT_KEYS) <= set(TEXT)


def test_nothing_is_loaded_and_only_the_own_script_may_run(page: Page, tmp_path: Path) -> None:
    for p in (page, make(tmp_path, extra=HOSTILE)):
        policy = next(a["content"] or "" for tag, a in p.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        code = [text for attrs, text in p.scripts if attrs.get("type") is None]
        assert len(code) == 1
        assert len(p.scripts) == 2
        assert f"'sha256-{base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()}'" in policy
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", code[0])
        for tag, attrs in p.elements:
            assert tag not in {"img", "link", "iframe", "object", "embed", "image", "use", "base"}
            assert not any(name.startswith("on") for name in attrs)
            assert attrs.get("src") is None
            assert (attrs.get("href") or "#").startswith("#")
    first = p.data()["questions"][0]
    assert first["q"].endswith(HOSTILE)
    assert first["o"][3].endswith(HOSTILE)


def test_the_data_hold_the_disagreements_and_nothing_twice(page: Page) -> None:
    data = page.data()
    assert (data["total"], data["scored"]) == (17, 40)
    assert [q["i"] for q in data["questions"]] == [
        "q1",
        "q3",
        "q4",
        "q5",
        "q7",
        *(f"q{i}" for i in range(11, 40, 2) if i % 10 != 9),
    ]
    assert data["views"] == [
        {"prompt": "text", "method": "likelihood", "shots": 0, "chat": False},
        {"prompt": "letter", "method": "likelihood", "shots": 0, "chat": False},
        {"prompt": "letter", "method": "generation", "shots": 0, "chat": False},
    ]
    assert len(data["passages"]) == len(set(data["passages"])) == 16
    four = data["questions"][2]
    assert four["k"] == "passage-2"
    assert data["passages"][four["x"]] == "第2天，小店卖出了5个苹果。"
    assert four["a"] == 0
    assert [[choice for choice, *_ in answers] for _, answers in four["r"]] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert four["r"][0][1][2] == [1, [-3.5, -1.25, -3.75, -3.88]]
    assert four["r"][2][1][0] == [0, 0, "模型说"]


def test_without_text_nothing_of_questions_options_and_completions(tmp_path: Path) -> None:
    page = make(tmp_path, with_text=False)
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    for words in ("小店卖出", "模型说", "9个"):
        assert words in (tmp_path / "eval-base" / "questions.jsonl").read_text(encoding="utf-8") + "模型说"
        assert words not in html
    assert page.data()["questions"][0]["i"] == "q1"
    assert "--no-text" in page.text


def test_folders_without_texts_still_show_choices(tmp_path: Path) -> None:
    folders = write_models(tmp_path, 20, ("base", "tuned"))
    for f in folders:
        (f / "questions.jsonl").unlink()
    out = compare_folders([str(f) for f in folders], CompareSpec(), tmp_path / "compare.html")[1]
    data = Page(out.read_text(encoding="utf-8")).data()
    assert "q" not in data["questions"][0]
    assert data["passages"] == []


def test_more_questions_than_the_limit_are_thinned_and_counted() -> None:
    questions = [question(i) for i in range(100)]
    rows = [{r["id"]: r for r in rows_of(m, questions, lambda i, _, m=m: m == "a", ("text",))} for m in "ab"]
    condition = {"task": "shop-zh", "group": "dev", "method": "likelihood", "shots": 0, "chat": False, "prompt": "text"}
    data = disagreements(["a", "b"], [(condition, rows)], {}, True, limit=10)
    assert (data["total"], data["scored"], len(data["questions"])) == (100, 100, 10)
    assert [q["i"] for q in data["questions"]] == [f"q{i}" for i in range(0, 100, 10)]


def test_one_passage_has_no_interval_and_the_page_says_so(tmp_path: Path) -> None:
    questions = [question(i, per_passage=9) for i in range(9)]
    folders = [
        write_folder(tmp_path / m, rows_of(m, questions, lambda i, _, m=m: m == "b"), questions) for m in ("a", "b")
    ]
    out = compare_folders([str(f) for f in folders], CompareSpec(), tmp_path / "compare.html")[1]
    assert "one passage says nothing of the spread" in Page(out.read_text(encoding="utf-8")).text


def test_scales_hold_every_value_and_few_round_ticks() -> None:
    pairs = [{"difference": 0.013, "low": -0.004, "high": 0.03}]
    scale = Scale.of_differences(pairs, 0.02)
    assert (scale.low, scale.high, scale.step) == (pytest.approx(-0.02), pytest.approx(0.03), 0.01)
    assert (scale.at(-0.02), scale.at(0.03), scale.at(9)) == ("0.00%", "100.00%", "100.00%")
    assert re.findall(r">([^<]+)</text>", scale.axis()) == ["−2", "−1", "0", "+1", "+2", "+3"]
    whole = Scale.of_differences([{"difference": 0.0, "low": -1.0, "high": 1.0}], 0.02)
    assert (whole.low, whole.high) == (-1.0, 1.0)

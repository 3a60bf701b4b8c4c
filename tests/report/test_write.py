"""The page as a whole: what it holds, what it must not hold."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.report.questions import unpack
from pandallm.report.write import write_report
from pandallm.store import read_json, write_json
from tests.report.example_run import HOSTILE, MODELS, write_example_run

VOID = {"meta", "input", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Parses the page as a browser would: elements, attributes, text, and that tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def ids(self) -> list[str]:
        return [a["id"] or "" for _, a in self.elements if "id" in a]

    def data(self) -> Any:
        """What the page's script reads: JSON, packed on a run's page."""
        kind, text = next((a["type"], text) for a, text in self.scripts if a.get("type"))
        return unpack(text) if kind == "application/gzip" else json.loads(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_run(tmp_path_factory.mktemp("hostile"), hostile=HOSTILE, questions=4, steps=5)


@pytest.fixture(scope="module")
def hostile_page(hostile: Path) -> Page:
    return Page(write_report(hostile).read_text(encoding="utf-8"))


def test_sections_numbers_and_unique_ids(page: Page) -> None:
    sections = {
        "summary",
        "curves",
        "data",
        "contamination",
        "scores",
        "differences",
        "bpb",
        "forgetting",
        "questions",
        "release",
        "provenance",
    }
    assert sections <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))  # also across drawings
    for shown in (
        "84.0%",
        "[78.0%, 90.0%]",
        "+36.0",
        "1.450",
        "+32.0%",
        "≈ chance",
        "Rules need more steps",
        "12.5%",
        "1.2 MB",
        "Test CPU",
    ):
        assert shown in page.text


def test_both_languages_and_chinese_labels_stay_text(page: Page) -> None:
    for shown in ("Loss curves", "损失曲线", "Best constant", "最佳常数", "accuracy, %", "准确率，%", "问答"):
        assert shown in page.text
    marked = [a["data-l"] for _, a in page.elements if "data-l" in a]
    assert marked.count("en") == marked.count("zh") > 100


def test_charts_have_descriptions_and_scale(page: Page) -> None:
    charts = [a for _, a in page.elements if a.get("role") == "img"]
    assert len(charts) >= 2 * 10
    assert all(a.get("aria-label") for a in charts)
    drawings = [a for tag, a in page.elements if tag == "svg"]
    assert all("viewbox" in a and "width" not in a for a in drawings)


def test_nothing_is_loaded_and_only_the_own_script_may_run(page: Page, hostile_page: Page) -> None:
    for p in (page, hostile_page):
        policy = next(a["content"] or "" for tag, a in p.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        code = [text for attrs, text in p.scripts if attrs.get("type") is None]
        assert len(code) == 1
        assert f"'sha256-{base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()}'" in policy
        for tag, attrs in p.elements:
            assert tag not in {"img", "link", "iframe", "object", "embed", "image", "use", "base"}
            assert not any(name.startswith("on") for name in attrs)
            assert attrs.get("src") is None
            assert (attrs.get("href") or "#").startswith("#")
        assert not re.search(r"url\(|@import", "".join(p.words))


def test_hostile_text_is_shown_as_text(hostile_page: Page, hostile: Path) -> None:
    assert len(hostile_page.scripts) == 2
    question = hostile_page.data()["questions"][0]
    assert question["q"].endswith(HOSTILE)
    assert question["o"][3] == "汤圆" + HOSTILE
    assert any(row.get("t", "").endswith(HOSTILE) for row in question["rows"])
    html = (hostile / "report.html").read_text(encoding="utf-8")
    assert "</script><script>alert" not in html
    assert "<img" not in html
    # Escaped once, not twice, and not run as a template: source, title, near-chance reason, recipe.
    assert hostile_page.text.count("</script><script>alert('x')</script>") > 5
    assert "{{ 7*7 }}" in hostile_page.text


def test_without_text_nothing_of_questions_options_and_completions(run: Path, tmp_path: Path) -> None:
    out = write_report(run, tmp_path / "shared.html", text=False)
    html = out.read_text(encoding="utf-8")
    for words in ("最喜欢吃什么", "面条", "饺子", "汤圆", "答案大概", "段材料"):
        assert words in (run / "questions.jsonl").read_text(encoding="utf-8") + (run / "rows.jsonl").read_text(
            encoding="utf-8"
        )
        assert words not in html
    question = Page(html).data()["questions"][0]
    assert question["id"] == "facts-zh/0"
    assert question["answer"] == 0
    assert {row["m"] for row in question["rows"]} == {0, 1, 2}
    assert [-1.5, -2.25, -3.0, -0.125] in [row.get("s") for row in question["rows"]]
    assert "--no-text" in html


def test_questions_without_their_file_still_show_choices(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "questions.jsonl").unlink()
    data = Page(write_report(copy).read_text(encoding="utf-8")).data()
    assert data["models"] == list(MODELS)
    assert len(data["questions"]) == 30
    assert "q" not in data["questions"][0]


def test_optional_files_may_be_missing(tmp_path: Path) -> None:
    run = write_example_run(tmp_path / "run", questions=2, steps=3)
    for name in ("delta.json", "questions.jsonl", "rows.jsonl", "recipe.yaml"):
        (run / name).unlink()
    for name in ("metrics", "ledgers", "contamination"):
        shutil.rmtree(run / name)
    write_json(
        run / "scores.json", {"confidence": 0.95, "models": ["base"], "table": read_json(run / "scores.json")["table"]}
    )
    write_json(run / "manifest.json", {"name": "bare", "seed": 1})
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert {"summary", "scores", "provenance"} <= set(page.ids)
    assert not {"curves", "data", "contamination", "differences", "bpb", "forgetting", "questions", "release"} & set(
        page.ids
    )
    assert "This run fixes no headline" in page.text
    links = {a["href"] for tag, a in page.elements if tag == "a"}
    assert links == {"#summary", "#scores", "#provenance"}


@pytest.mark.parametrize("name", ["manifest.json", "scores.json"])
def test_a_run_without_manifest_or_scores_is_refused(name: str, tmp_path: Path) -> None:
    for other in {"manifest.json", "scores.json"} - {name}:
        write_json(tmp_path / other, {})
    with pytest.raises(BadInput, match=re.escape(name)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        write_report(tmp_path / "nowhere")


def test_numbers_without_an_interval_are_shown_without_one(tmp_path: Path) -> None:
    run = write_example_run(tmp_path / "run")
    scores = read_json(run / "scores.json")
    lists = [scores["table"], scores["differences"], scores["bits_per_byte"], scores["bits_per_byte_changes"]]
    models = [scores["headline"][m] for m in scores["models"]]
    for row in [*(row for rows in lists for row in rows), *models]:
        row["low"] = row["high"] = None
    write_json(run / "scores.json", scores)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "too few clusters for an interval" in page.text


def test_a_difference_that_holm_does_not_confirm_is_not_called_established(tmp_path: Path) -> None:
    run = write_example_run(tmp_path / "run")
    scores = read_json(run / "scores.json")
    task = {**scores["differences"][0], "what": "sums"}
    scores["differences"] = [{**task, "difference": 0.1, "low": 0.02, "high": 0.18, "p": 0.03, "p_holm": 0.2}]
    write_json(run / "scores.json", scores)
    assert "b higher" not in Page(write_report(run).read_text(encoding="utf-8")).text
    scores["differences"][0]["p_holm"] = 0.04
    write_json(run / "scores.json", scores)
    assert "b higher" in Page(write_report(run).read_text(encoding="utf-8")).text


def test_contamination_shares_and_prompts_are_told(page: Page) -> None:
    for shown in ("shares 13 characters in a row", "1.8%", "doc-1", "8.4%", "30.0%", "Prompt spread"):
        assert shown in page.text
    assert "reported, kept" in page.text


def test_the_papers_figures_stand_beside_its_tasks(tmp_path: Path) -> None:
    run = write_example_run(tmp_path / "run", questions=2, steps=3)
    scores = read_json(run / "scores.json")
    scores["table"].append({**scores["table"][0], "task": "c3-d", "n": 1890})
    scores["table"].append({**scores["table"][0], "task": "c3-m", "n": 100})
    write_json(run / "scores.json", scores)
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "on its test set of 1,890 questions:" in text
    assert "on its test set of 2,002 questions, which are not those asked here:" in text
    assert "Panda-Instruct-7B, 9k steps 47.3%" in text  # 894 of 1,890
    assert "always C总选 C 29.6%" in text  # 559 of 1,890

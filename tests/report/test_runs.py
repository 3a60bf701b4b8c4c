"""The page of several runs as a document; what needs a browser is tested in tests/browser."""

import base64
import hashlib
import string
from pathlib import Path

import altair as alt
import pytest

from pandallm.pipeline.compare_runs import report_runs
from pandallm.report import compare_text
from pandallm.report import text as report_text
from pandallm.report.runs_charts import COLOURS, MAX_LINES, changes_chart, curves_of, overlay_chart, thinned
from pandallm.report.runs_text import TEXT, text
from tests.report.example_runs import write_finished_run
from tests.report.test_write import Page

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;{{ 7*7 }}"


def make(root: Path, names: tuple[str, ...] = ("first", "second"), **more: object) -> Page:
    runs = [
        write_finished_run(root / n, lambda i, k=k: i % (k + 2) > 0, seed=k, bits=2.0 - k / 10, **more)  # type: ignore[arg-type]
        for k, n in enumerate(names)
    ]
    return Page(report_runs(runs, root / "runs.html")[1].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return make(tmp_path_factory.mktemp("page"), ("first", "second", "third"))


def test_sections_numbers_and_unique_ids(page: Page) -> None:
    sections = {
        "headline",
        "scores",
        "differences",
        "bpb",
        "curves",
        "recipes",
        "training",
        "machines",
        "method",
    }
    assert sections <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for shown in (
        "3 runs side by side",
        "50.0%",
        "+15.0",
        "against first",
        "−5.0%",
        "on 12 documents",
        "second against first",
        "made anew: pack instruct, train instruct",
        "1 min 1 s",
        "An abacus",
        "1 h 6 min",
    ):
        assert shown in page.text, shown
    marked = [a["data-l"] for _, a in page.elements if "data-l" in a]
    assert marked.count("en") == marked.count("zh") > 80
    assert {"损失曲线", "每字节比特数", "配方差异"} <= set(page.words)


def test_a_setting_that_differs_stands_beside_that_of_the_first_run(tmp_path: Path) -> None:
    a = write_finished_run(tmp_path / "a", lambda i: i % 2 == 0)
    stage = {
        "from": "base",
        "corpus": "chinese",
        "sequence_length": 64,
        "batch_sequences": 4,
        "epochs": 2,
        "optimizer": {"lr": 0.001},
    }
    b = write_finished_run(tmp_path / "b", lambda i: i % 2 == 0, recipe={"stages": {"instruct": stage}, "name": "owl"})
    page = Page(report_runs([a, b], tmp_path / "runs.html")[1].read_text(encoding="utf-8"))
    words = "|".join(w.strip() for w in page.words if w.strip())
    assert "stages.instruct.batch_sequences|2|4" in words
    assert "name|changes no result" in words


def test_equal_runs_of_another_seed_differ_in_the_seed_alone(tmp_path: Path) -> None:
    page = make(tmp_path, ("one", "two"), questions=8)
    words = "|".join(w.strip() for w in page.words if w.strip())
    assert "|seed|0|1|" in words


def test_every_text_has_both_languages_with_the_same_holes() -> None:
    for key, (en, zh) in TEXT.items():
        holes = [{name for _, name, _, _ in string.Formatter().parse(s) if name} for s in (en, zh)]
        assert holes[0] == holes[1], key
        assert en, key
        assert zh, key
    assert text("means_equivalent", "en", margin="2") == compare_text.text("means_equivalent", "en", margin="2")
    assert text("stage", "zh") == report_text.TEXT["stage"][1]


def test_nothing_is_loaded_no_text_becomes_markup_and_only_the_own_script_may_run(page: Page, tmp_path: Path) -> None:
    hostile = make(tmp_path, (f"a {HOSTILE.replace('/', '-')}", "b"), text=HOSTILE)
    for p in (page, hostile):
        policy = next(a["content"] or "" for tag, a in p.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        (code,) = [words for _, words in p.scripts]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" in policy
        for tag, attrs in p.elements:
            assert tag not in {"img", "link", "iframe", "object", "embed", "image", "use", "base"}
            assert not any(name.startswith("on") for name in attrs)
            assert attrs.get("src") is None
            assert (attrs.get("href") or "#").startswith("#")
    assert f"An abacus{HOSTILE}" in hostile.text
    assert hostile.text.count(HOSTILE.replace("/", "-")) > 5  # a run's name
    assert "49" not in "".join(w for w in hostile.words if "alert" in w)


def test_no_question_is_on_the_page_and_many_do_not_make_it_longer(tmp_path: Path) -> None:
    few = make(tmp_path / "few", questions=40, text="从未问过")
    many = make(tmp_path / "many", questions=1200, text="从未问过")
    assert "第1问" in (tmp_path / "few" / "first" / "questions.jsonl").read_text(encoding="utf-8")
    sizes = [(tmp_path / n / "runs.html").stat().st_size for n in ("few", "many")]
    assert abs(sizes[1] - sizes[0]) < 3000
    for p in (few, many):
        assert "第1问" not in p.text


def test_twelve_runs_with_long_curves_stay_small(tmp_path: Path) -> None:
    make(tmp_path, tuple(f"run-{k}" for k in range(12)), questions=8, steps=2000)
    assert (tmp_path / "runs.html").stat().st_size < 1_000_000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The specifications that are drawn, after altair has checked them."""
    specs: list[dict] = []
    original = alt.LayerChart.to_dict, alt.Chart.to_dict

    def of(make):  # type: ignore[no-untyped-def]
        def to_dict(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            spec = make(self, *args, **kwargs)
            specs.append(spec)
            return spec

        return to_dict

    monkeypatch.setattr(alt.LayerChart, "to_dict", of(original[0]))
    monkeypatch.setattr(alt.Chart, "to_dict", of(original[1]))
    return specs


def test_curves_are_drawn_over_trained_tokens_where_every_run_tells_them(drawn: list[dict]) -> None:
    told = [{"step": k, "loss": 2.0 / k, "trained_tokens": 50} for k in (1, 2, 3)]
    silent = [{"step": k, "loss": 3.0 / k} for k in (1, 2, 3)]
    both = curves_of({"a": told, "b": told}, {"a": told, "b": told})
    assert "trained tokens" in overlay_chart(both, "loss", "axis_loss", "en")
    assert [(p["x"], p["y"]) for p in drawn[-1]["data"]["values"]] == 2 * [(50, 2.0), (100, 1.0), (150, 2 / 3)]
    mixed = curves_of({"a": told, "b": silent}, {"a": told, "b": silent})
    svg = overlay_chart(mixed, "loss", "axis_loss", "en")
    assert "trained tokens" not in svg
    assert [p["x"] for p in drawn[-1]["data"]["values"]] == [1, 2, 3, 1, 2, 3]
    assert overlay_chart(mixed[:1], "loss", "axis_loss", "en") == ""
    assert overlay_chart(both, "absent", "axis_loss", "en") == ""


def test_many_runs_are_thinned_and_capped() -> None:
    lines = [{"step": k, "loss": 1.0} for k in range(1, 4001)]
    assert [thinned(lines, n) for n in (2, 4, 50)] == [10, 20, 40]
    curves = [(f"r{k}", lines[:2], {}) for k in range(MAX_LINES + 3)]
    svg = overlay_chart(curves, "loss", "axis_loss", "en")
    assert f">r{MAX_LINES - 1}<" in svg
    assert f">r{MAX_LINES}<" not in svg


def test_a_run_has_the_same_colour_in_both_charts() -> None:
    changes = [{"run": "c", "language": "zh", "change": -0.1, "low": -0.2, "high": -0.05}]
    svg = changes_chart(changes, ["a", "b", "c"], "en")
    assert COLOURS[2] in svg
    assert "Chinese" in svg
    assert changes_chart([], ["a"], "en") == ""

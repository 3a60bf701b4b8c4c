"""A study's page and tables."""

import json
import re
from pathlib import Path

import altair as alt
import pytest

from pandallm.report import study as study_page
from pandallm.report.questions import unpack
from pandallm.report.study import NOTES, render_study
from pandallm.report.study_charts import dose_chart, forest_chart, power_chart, prompts_chart
from pandallm.report.study_text import (
    claim_sentences,
    effect,
    flops,
    power_table,
    size,
    study_latex,
    study_markdown,
    value,
)
from pandallm.report.study_words import TEXT
from pandallm.store import read_jsonl, write_jsonl
from pandallm.study.answers import answers_by_seed, run_reports
from pandallm.study.report import write_study_report
from pandallm.study.results import compute_results
from tests.study.fake import contrast, fake_study

HOSTILE = '<script>alert("x")</script>|$\\'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = fake_study(
        tmp_path_factory.mktemp("study"),
        lambda level, seed: {"1": 0.4, "10": 0.5, "100": 0.6}[level] + 0.005 * (seed % 2) * (level != "1"),
        lambda level, seed: {"1": 1.0, "10": 0.9, "100": 0.8}[level] * (1 + 0.01 * seed),
        levels=("1", "10", "100"),
        contrasts={
            "more": contrast("1", "100", "better", claim=HOSTILE),
            "bits": contrast("1", "10", "better", "chinese", claim="fewer bits"),
        },
        failed=(("10", 4),),
    )
    return compute_results(folder)


def test_numbers_as_they_are_written() -> None:
    assert (value(0.1234, "accuracy"), value(1.23456, "bits_per_byte"), value(None, "accuracy")) == (
        "12.3",
        "1.235",
        "–",
    )
    assert (effect(-0.0123, "accuracy"), effect(0.00456, "bits"), effect(None, "bits")) == ("-1.2", "+0.46 %", "–")


def test_markdown_and_latex_say_what_the_results_say(results: dict) -> None:
    text = study_markdown(results)
    assert "14 of 15 runs are complete (1 failed)." in text
    assert "- Failed: dose-10, seed 4: it broke" in text
    more = results["contrasts"][0]
    assert f"| {effect(more['effect'], 'accuracy')} |" in text
    assert "<script>" not in text
    assert r"\<script\>" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    latex = study_latex(results)
    assert latex.count(r"\begin{tabular}") == 2
    assert r"\$\textbackslash{}" in latex
    sentences = claim_sentences(results)
    assert sentences[1].startswith("bits: fewer bits: reproduced. dose 10 against dose 1 on chinese: -10.0")


def test_the_page_is_one_file_with_everything_and_nothing_from_the_data_as_markup(results: dict) -> None:
    page = render_study(results)
    assert page.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert page.count("<svg") == 2 * (2 + 2 + 1 + 1 + 3), (
        "two forests, two doses, power, a frontier, three mixes, each in two languages"
    )
    assert "on abacus, 2 cores. Stages that several runs need were made once: 7.5 of 14.0 minutes of work." in page
    assert "dose-10, seed 4: it broke" in page
    assert 'class="good"' in page
    for key in ("claims", "doses", "power", "forgetting"):
        assert TEXT[key][0] in page
        assert TEXT[key][1] in page
    assert len(page) < 3_000_000


def test_every_seed_is_drawn(results: dict) -> None:
    with alt.utils.schemapi.debug_mode(True):
        rows = [r for r in results["doses"] if r["metric"] == "facts"]
        svg = dose_chart(rows, "accuracy", "en")
        assert svg.count("<path") >= 5 + 4 + 5 + 3
        assert ">100</text>" in svg
        many = [rows[0] | {"level": str(10 * n)} for n in range(1, 9)]
        assert all(f">{10 * n}</text>" in dose_chart(many, "accuracy", "en") for n in range(1, 9)), (
            "every level has its tick"
        )
        words = [r | {"level": f"level {r['level']}"} for r in rows]
        assert "level 10" in dose_chart(words, "accuracy", "zh")
        forest = forest_chart([c | {"label": c["name"]} for c in results["contrasts"][:1]], False, "en")
        assert forest.count("<path") >= 5
    assert dose_chart(rows[:1], "accuracy", "en") == ""
    assert forest_chart([], True, "en") == ""
    assert forest_chart([{"label": "x", "effect": None, "low": None, "high": None, "by_seed": {}}], True, "en") == ""


def test_budget_mix_and_data_stand_on_the_page_and_in_the_table(results: dict) -> None:
    page, text = render_study(results), study_markdown(results)
    assert (
        '<td class="num">1,000</td><td class="num">900</td><td class="num">2 kB</td><td class="num">1.00</td>' in page
    )
    assert '<td class="num">3 GFLOP</td>' in page
    assert '<td class="num">66.7%</td><td class="num">50.0%</td>' in page
    assert "duplicate 10" in page
    assert f"<small>25.0 · {value(results['arms'][0]['floors']['facts']['constant'], 'accuracy')} · 0.0</small>" in page
    assert "| dose-10 | tuned | chinese | 10 | 1,000 | 900 | 3 kB | 1.50 | 3 GFLOP | 0.5 |" in text
    assert [flops(f) for f in (None, 12.0, 1.2e12, 3.456e20)] == ["–", "12 FLOP", "1.2 TFLOP", "346 EFLOP"]


def test_an_interval_is_drawn_within_what_an_accuracy_can_be() -> None:
    rows = [{"level": n, "mean": 0.9, "low": -2.0, "high": 3.0, "by_seed": {"1": 0.9, "2": 0.8}} for n in ("a", "b")]
    drawn = dose_chart(rows, "accuracy", "en")
    assert ">100</text>" in drawn
    assert ">150</text>" not in drawn
    assert ">−50</text>" not in drawn


def test_prompts_stand_beside_each_other_with_their_spread(results: dict) -> None:
    means = {"plain": {"mean": 0.5, "low": -0.2, "high": 1.4}, HOSTILE: {"mean": 0.25, "low": None, "high": None}}
    rows = [{"metric": "facts", "arm": "dose-1", "spread": 0.25, "prompts": means}]
    rows.append({"metric": "facts", "arm": "dose-10", "spread": 0.0, "prompts": {"plain": means["plain"]}})
    page = render_study(results | {"prompts": rows})
    assert '<h2 id="prompts">' in page
    assert HOSTILE not in page
    assert '<td class="num"><b>50.0</b><small>-20.0 to 140.0</small></td><td class="num"><b>25.0</b>' in page
    assert '<td class="num">–</td><td class="num">0.0</td>' in page
    with alt.utils.schemapi.debug_mode(True):
        drawn = prompts_chart(rows, {"dose-1": "one", "dose-10": "ten"}, "zh")
    assert ">ten</text>" in drawn
    assert prompts_chart([], {}, "en") == ""
    assert '<h2 id="prompts">' not in render_study(results), "one prompt has nothing beside it"


def test_power_has_a_line_and_a_dot_where_the_study_stands_and_a_table(results: dict) -> None:
    power, page = results["power"], render_study(results)
    with alt.utils.schemapi.debug_mode(True):
        svg = power_chart(power, "accuracy", "en")
        more = power | {"curves": [power["curves"][0] | {"name": n} for n in (HOSTILE, "other", "third")]}
        many = power_chart(more, "accuracy", "zh")
    assert ">seeds</text>" in svg
    assert all(f">{n}</text>" in svg for n in (2, 5, 10, 15, 20))
    assert ">种子数</text>" in many
    assert "<script>" not in many
    dots, lines = (many.count(f'class="mark-{kind} role-mark') for kind in ("symbol", "line"))
    assert (dots, lines) == (1, 3), "a group of dots, a line each"
    assert power_chart(power | {"curves": []}, "accuracy", "en") == ""
    (curve,) = power["curves"]
    at_ten = size(curve["detectable"][8], "accuracy")
    assert power_table(results)[1][0][:5] == [
        "more",
        "5",
        *(size(curve["detectable"][n - 2], "accuracy") for n in (3, 5, 10)),
    ]
    assert f'<td class="num">{at_ten}</td>' in page
    assert f"| {at_ten} |" in study_markdown(results)


def packs(page: str) -> dict[int, dict]:
    """Seed -> what its pack holds."""
    found = re.findall(r'<script type="application/gzip" data-seed="(\d+)">([^<]+)</script>', page)
    return {int(seed): unpack(text) for seed, text in found}


def small(folder: Path, **more) -> tuple[Path, dict]:
    made = fake_study(folder, lambda level, _: 0.3 if level == "low" else 0.6, lambda *_: 1.0, questions=40, **more)
    return made, compute_results(made)


def test_every_seed_has_its_questions_with_each_arms_answer(tmp_path: Path) -> None:
    folder, results = small(tmp_path, seeds=3, failed=(("low", 3),))
    page = render_study(results, answers_by_seed(folder, results))
    found = packs(page)
    assert list(found) == [1, 2, 3]
    assert [data["models"] for data in found.values()] == [["dose-low", "dose-high"]] * 2 + [["dose-high"]]
    for seed, data in found.items():
        assert data["total"] == len(data["questions"]) == 40
        third = data["questions"][3]
        assert third["q"] == f"世界{seed}第3问：几个苹果？"
        assert third["o"] == ["3个", "4个", "5个", "6个"]
        for m, arm in enumerate(data["models"]):
            rows = read_jsonl(folder / "arms" / f"{arm}-seed{seed}" / "rows.jsonl")
            (wanted,) = (r["choice"] for r in rows if r["id"] == "q3" and r["model"] == "tuned")
            assert [r["c"] for r in third["rows"] if r["m"] == m] == [wanted]
        assert data["text"]["seed"] == {"en": "seed {n}", "zh": "种子 {n}"}
    assert page.count("<script>") == 1
    assert 'id="questions"' not in render_study(results)


def test_without_text_no_question_is_in_the_page(tmp_path: Path) -> None:
    folder, results = small(tmp_path, seeds=2)
    page = render_study(results, answers_by_seed(folder, results), with_text=False)
    assert "苹果" not in json.dumps(list(packs(page).values()), ensure_ascii=False) + page
    assert packs(page)[1]["questions"][3]["rows"]
    assert "Made with --no-text" in page
    (folder / "arms" / "dose-low-seed1" / "report.html").write_text("几个苹果？", encoding="utf-8")
    write_study_report(folder, text=False)
    assert "arms/dose-low-seed1" not in (folder / "report.html").read_text(encoding="utf-8")
    assert all("苹果" not in p.read_text(encoding="utf-8") for p in folder.glob("re*.*"))
    assert "苹果" not in json.dumps(packs((folder / "report.html").read_text(encoding="utf-8")), ensure_ascii=False)
    write_study_report(folder)
    assert "arms/dose-low-seed1/report.html" in (folder / "report.html").read_text(encoding="utf-8")
    assert "苹果" in json.dumps(packs((folder / "report.html").read_text(encoding="utf-8")), ensure_ascii=False)


def test_seeds_without_room_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = small(tmp_path, seeds=3)
    bare, whole = render_study(results), render_study(results, answers_by_seed(folder, results))
    pack = max(len(t) for t in re.findall(r'data-seed="\d+">([^<]+)<', whole))
    assert "left out to keep the page below 3 MB" not in whole
    room = len(bare.encode()) + NOTES
    monkeypatch.setattr(study_page, "MAX_PAGE", room + 2 * pack + 300)
    two = render_study(results, answers_by_seed(folder, results))
    assert list(packs(two)) == [1, 2]
    assert "Seeds 3 are left out" in two
    monkeypatch.setattr(study_page, "MAX_PAGE", room + pack - 20)
    one = render_study(results, answers_by_seed(folder, results))
    assert list(packs(one)) == [1]
    assert 0 < len(packs(one)[1]["questions"]) < 40
    assert f"{len(packs(one)[1]['questions'])} of 40 questions are shown" in one
    assert len(one.encode()) <= room + pack
    monkeypatch.setattr(study_page, "MAX_PAGE", 0)
    assert packs(render_study(results, answers_by_seed(folder, results))) == {}


def test_a_question_that_arms_ask_in_other_words_is_left_out(tmp_path: Path) -> None:
    folder, results = small(tmp_path, seeds=1)
    path = folder / "arms" / "dose-high-seed1" / "questions.jsonl"
    questions = list(read_jsonl(path))
    questions[3]["question"] = "又问什么？"
    write_jsonl(path, questions)
    page = render_study(results, answers_by_seed(folder, results))
    assert "q3" not in [q["id"] for q in packs(page)[1]["questions"]]
    assert packs(page)[1]["total"] == 39
    assert "1 questions that two arms ask in different words are left out." in page


def test_runs_without_texts_still_show_choices_and_reports_are_linked(tmp_path: Path) -> None:
    folder, results = small(tmp_path, seeds=2, texts=False)
    assert run_reports(folder, results) == {"dose-low": [], "dose-high": []}
    (folder / "arms" / "dose-high-seed2" / "report.html").write_text("a report", encoding="utf-8")
    page = render_study(results, answers_by_seed(folder, results), run_reports(folder, results))
    assert "q" not in packs(page)[1]["questions"][0]
    assert re.findall(r'href="([^#"]+)"', page) == ["arms/dose-high-seed2/report.html"]


def test_an_empty_study_has_a_page(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, lambda a, b: 0.5, lambda a, b: 1.0, seeds=1, failed=(("low", 1), ("high", 1)))
    page = render_study(compute_results(folder))
    assert TEXT["no_seed"][0] in page
    assert TEXT["unfinished"][1] in page

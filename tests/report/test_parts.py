"""Summary, tables, questions, ledgers and charts on cases worked by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.report.charts import (
    bits_chart,
    change_chart,
    difference_chart,
    fates,
    funnel_chart,
    headline_chart,
    held_out_chart,
    loss_chart,
    mix_chart,
    prompt_chart,
    thinning,
    trained_tokens,
)
from pandallm.report.published import published_of
from pandallm.report.questions import pack_questions, question_data, script_json, unpack
from pandallm.report.run import interval_includes_chance, read_run
from pandallm.report.summary import summary
from pandallm.report.tables import COLUMNS, latex_table, markdown_table
from pandallm.report.text import TEXT, asked_how, duration, percent, signed, size
from pandallm.store import read_json, write_json
from tests.report.example_run import example_scores, write_example_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_example_run(tmp_path / "run", questions=12, steps=4)


def test_every_fixed_text_is_in_both_languages_with_the_same_holes() -> None:
    for key, (en, zh) in TEXT.items():
        assert en, key
        assert zh, key
        assert sorted(p for p in en.split("{")[1:]) == [] or {p.split("}")[0] for p in en.split("{")[1:]} == {
            p.split("}")[0] for p in zh.split("{")[1:]
        }
        if key not in {"n", "p"}:
            assert any("\u4e00" <= c <= "\u9fff" for c in zh), key
        assert not any("\u4e00" <= c <= "\u9fff" for c in en), key


def test_numbers_are_written_for_people() -> None:
    assert [percent(0.8125), percent(None), percent(1.0)] == ["81.2%", "–", "100.0%"]
    assert [signed(0.031), signed(-0.6, "%"), signed(None)] == ["+3.1", "−60.0%", "–"]
    assert [size(999), size(4_321_000), size(None)] == ["999 B", "4.32 MB", "–"]
    assert [duration(4.25), duration(59.2), duration(301), duration(3700), duration(3700, "zh")] == [
        "4.2 s",
        "59 s",
        "5 min 1 s",
        "1 h 1 min",
        "1 小时 1 分",
    ]


def test_summary_claims_no_more_than_the_intervals(run: Path) -> None:
    sentences = summary(read_run(run))
    english, chinese = (" ".join(s[i] for s in sentences) for i in (0, 1))
    assert "accuracy on facts-zh (group asked), over all prompts, by likelihood; intervals are 95%" in english
    assert "base: 26.0% (20.0% to 32.0%; n = 96, 48 clusters), not told apart from chance (25.0%)." in english
    assert "instruct: 84.0% (78.0% to 90.0%; n = 96, 48 clusters), above chance (25.0%)." in english
    assert "pretrain is higher than base: +36.0 points (+27.0 to +45.0, p < 0.001)." in english
    assert (
        "No difference between pretrain and instruct is established: +22.0 points (−1.0 to +45.0, p = 0.061)."
        in english
    )
    assert "Control never_seen: 24.0%" in english
    assert "English text from base to instruct: +32.0% (+27.0% to +37.0%), worse: forgetting." in english
    assert "On rules-zh every interval includes chance" in english
    assert "made-up world" in english
    assert "pretrain 高于 base：+36.0 个百分点" in chinese
    assert "不能确认 pretrain 与 instruct 之间存在差异" in chinese


def test_summary_of_a_lower_model_and_of_no_change(run: Path) -> None:
    scores = example_scores()
    scores["differences"] = [
        {"a": "instruct", "b": "base", "what": "headline", "difference": -0.58, "low": -0.6, "high": -0.5, "p": None}
    ]
    scores["bits_per_byte_changes"] = [
        {"a": "base", "b": "instruct", "language": "en", "change": 0.01, "low": -0.02, "high": 0.04}
    ]
    write_json(run / "scores.json", scores)
    english = " ".join(en for en, _ in summary(read_run(run)))
    assert "base is lower than instruct: −58.0 points (−60.0 to −50.0)." in english
    assert "no change established" in english
    assert "forgetting" not in english


def test_a_difference_of_the_wrong_sign_is_refused(run: Path) -> None:
    scores = example_scores()
    scores["differences"][0]["difference"] = -0.36
    write_json(run / "scores.json", scores)
    with pytest.raises(BadInput, match=r"differences\[0\] is a - b"):
        read_run(run)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"low": 0.2, "high": 0.3, "chance": 0.25}, True),
        ({"low": 0.25, "high": 0.3, "chance": 0.25}, True),
        ({"low": 0.26, "high": 0.3, "chance": 0.25}, False),
        ({"low": 0.1, "high": 0.2, "chance": 0.25}, False),
        ({"low": None, "high": None, "chance": 0.25}, False),
    ],
)
def test_interval_includes_chance(row: dict[str, Any], expected: bool) -> None:
    assert interval_includes_chance(row) is expected


def test_markdown_and_latex_hold_every_row_and_escape_markup() -> None:
    row = example_scores()["table"][0] | {"task": "a|b", "prompt": "x_y & 50%", "model": "<b>\\n{z}"}
    markdown = markdown_table({"table": [row]}).splitlines()
    assert len(markdown) == 3
    assert markdown[2].replace("\\|", "").count("|") == len(COLUMNS) + 1
    assert r"a\|b" in markdown[2]
    assert r"\<b\>" in markdown[2]
    assert "26.0% | 20.0% to 32.0% | 96 | 48 | 25.0% | 27.0% | – | interval includes chance" in markdown[2]
    latex = latex_table({"table": [row]})
    assert r"x\_y \& 50\%" in latex
    assert r"\textless{}b\textgreater{}\textbackslash{}n\{z\}" in latex
    assert r"26.0\% & 20.0\% to 32.0\%" in latex
    body = latex.splitlines()[4]
    assert body.replace(r"\&", "").count("&") == len(COLUMNS) - 1


def test_rows_asked_in_other_ways_are_told_apart() -> None:
    plain = example_scores()["table"][0] | {"prompt": "letter"}
    ways = [{}, {"shots": 5}, {"shots": 5, "chat": True}, {"order": 2}]
    assert [asked_how(plain | way) for way in ways] == [
        "letter",
        "letter 5-shot",
        "letter 5-shot chat",
        "letter order 2",
    ]
    lines = markdown_table({"table": [plain | way for way in ways]}).splitlines()[2:]
    assert len(set(lines)) == len(ways)
    assert "| letter 5-shot chat |" in lines[2]


def test_questions_are_thinned_evenly_and_say_so(run: Path) -> None:
    data = question_data(read_run(run), with_text=True, limit=4)
    assert data["total"] == 12
    assert [q["id"] for q in data["questions"]] == ["facts-zh/0", "facts-zh/3", "facts-zh/6", "facts-zh/9"]
    assert len(data["contexts"]) == 1  # every third question has the same passage, stored once
    assert data["views"] == ["listed · likelihood", "question · likelihood", "listed · generation"]


def test_packed_questions_keep_to_their_room(run: Path) -> None:
    r = read_run(run)
    whole = pack_questions(r, True, {"found": {}})
    assert (whole.total, whole.shown, whole.without_scores) == (12, 12, False)
    assert unpack(whole.text) == question_data(r, True) | {"text": {"found": {}}}
    assert pack_questions(r, True, {"found": {}}) == whole  # no time is stored
    # The invented scores repeat and pack to nothing; scores of models do not.
    for i, row in enumerate(r.rows):
        if row["scores"]:
            row["scores"] = [-math.sqrt(i + 7 * k) for k in range(4)]
    scored = pack_questions(r, True, {"found": {}})
    lean = pack_questions(r, True, {"found": {}}, room=len(scored.text) - 100)
    assert (lean.shown, lean.without_scores) == (12, True)
    assert not any("s" in row for q in unpack(lean.text)["questions"] for row in q["rows"])
    few = pack_questions(r, True, {"found": {}}, room=len(lean.text) - 100)
    assert few.total == 12
    assert 1 <= few.shown < 12
    assert len(few.text) <= len(lean.text) - 100


def test_nothing_scored_packs_to_nothing(run: Path) -> None:
    (run / "rows.jsonl").unlink()
    assert pack_questions(read_run(run), True, {}).text == ""


def test_the_papers_figures_are_of_its_tasks_only() -> None:
    assert published_of("facts-zh", 10) is None
    entry = published_of("c3-m", 2002)
    assert entry is not None
    assert entry["same"] is True
    assert dict(entry["models"])["Panda-7B"] == pytest.approx(874 / 2002)
    assert entry["constant"] == ("B", pytest.approx(557 / 2002))


def test_a_wanted_share_is_drawn_as_a_tick(run: Path) -> None:
    ledger = read_run(run).packs["pretrain"]
    with_tick = mix_chart(ledger, "en")
    for entry in ledger.sources.values():
        entry.pop("wanted_share", None)
    assert with_tick.count("mark-rect") == 2
    assert mix_chart(ledger, "en").count("mark-rect") == 1


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
    )
)
def test_script_json_comes_back_and_cannot_end_its_element(value: Any) -> None:
    dumped = script_json(value)
    assert json.loads(dumped) == value
    assert not set("<>&\u2028\u2029") & set(dumped)
    dumped.encode()


def test_fates_split_reasons_and_add_up(run: Path) -> None:
    entry = read_json(run / "ledgers" / "chinese.json")["sources"]["news"]
    assert fates(entry) == {
        "kept": 240,
        "held_out": 10,
        "duplicate": 20,
        "dropped": 10,
        "contaminated": 10,
        "quarantined": 10,
    }
    assert sum(fates(entry).values()) == entry["records"]


def test_token_ledgers_are_read_from_whole_packs(run: Path) -> None:
    packs = read_run(run).packs
    assert list(packs) == ["pretrain", "instruct"]  # in the order of the stages, not of the alphabet
    assert packs["pretrain"].total["exposures"] == 68000
    assert set(packs["pretrain"].sources) == {"wiki", "news", "问答", "translation"}


def test_loss_chart_draws_total_and_sources_and_thins() -> None:
    lines = [
        {"step": i, "loss": 1 / i, "loss_by_source": {"维基": 1 / i, "b": None if i % 2 else 2 / i}}
        for i in range(1, 1001)
    ]
    svg = loss_chart(lines, "zh")
    assert "维基" in svg
    assert "全部" in svg
    assert thinning(1000) == 3
    assert thinning(400) == 1
    path = max(svg.split(' d="'), key=len)
    assert path.split('"')[0].count("L") <= 400


def test_loss_is_drawn_over_trained_tokens_where_every_step_tells_them() -> None:
    lines: list[dict[str, Any]] = [
        {"step": i, "loss": 1 / i, "loss_by_source": {}, "trained_tokens": 100 * i} for i in range(1, 11)
    ]
    assert trained_tokens(lines)[3] == 100 + 200 + 300
    assert trained_tokens(lines)[0] == 0
    for language, title in (("en", "trained tokens"), ("zh", "受训词元")):
        svg = loss_chart(lines, language)
        assert f">{title}<" in svg
        assert ">5k<" in svg  # of 5,500 tokens, not of 10 steps
    watched = [{"step": i, "bits_per_byte": 2.0, "by_language": {}} for i in (0, 5, 10)]
    assert ">5k<" in held_out_chart(watched, "en", trained_tokens(lines))
    assert ">step<" in held_out_chart([*watched, {"step": 12, "bits_per_byte": 1.0}], "en", trained_tokens(lines))
    for broken in (lines[1:], lines[:3] + lines[4:], [{**lines[0], "trained_tokens": None}, *lines[1:]]):
        assert trained_tokens(broken) == {}
        assert ">step<" in loss_chart(broken, "en")


def test_held_out_chart_draws_all_text_and_languages() -> None:
    lines = [
        {
            "step": i,
            "bits_per_byte": 4 / (i + 1),
            "by_language": {"zh": 5 / (i + 1), "en": 3.0},
            "by_source": {"w": 1.0},
        }
        for i in range(0, 20, 2)
    ]
    svg = held_out_chart(lines, "zh")
    assert "决定性文本" in svg
    assert ">zh<" in svg
    assert ">en<" in svg
    assert ">w<" not in svg
    assert "每字节比特数" in svg
    assert held_out_chart([], "en") == ""


def test_every_chart_passes_its_schema(run: Path) -> None:
    """The page draws with the checks off; here they are on."""
    r = read_run(run)
    scores = r.scores
    group = [row for row in scores["table"] if row["group"] == "asked"]
    bits = [row for row in scores["bits_per_byte"] if row["language"] == "zh"]
    drawn = [
        headline_chart(r, "en"),
        prompt_chart(group, r.models, "zh"),
        bits_chart(bits, r.models, "zh"),
        change_chart(scores["bits_per_byte_changes"], "en"),
        difference_chart(scores["differences"], "en"),
        mix_chart(r.packs["pretrain"], "en"),
    ]
    for svg, label in zip(
        drawn, ("never_seen", "listed · 生成", "news_zh", "base → instruct", "pretrain → instruct", "问答")
    ):
        assert label in svg


def test_charts_of_nothing_are_left_out() -> None:
    assert loss_chart([{"step": 1, "loss": None, "loss_by_source": {}}], "en") == ""
    assert funnel_chart({"sources": {}}, "en") == ""


def test_names_that_look_like_expressions_are_drawn_as_names() -> None:
    name = "a'] || datum[\"b\x00\u2028"
    entry = {"records": 1, "kept": {"records": 1}}
    assert "a'] || datum[" in funnel_chart({"sources": {name: entry}}, "en")
    assert "datum[" in loss_chart([{"step": 1, "loss": 1.0, "loss_by_source": {name: 1.0, "other": 2.0}}], "en")

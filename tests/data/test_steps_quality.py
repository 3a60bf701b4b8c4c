"""Quality rules of Gopher, C4 and FineWeb."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.clean_spec import C4QualityStep, CleanStep, FinewebQualityStep, GopherQualityStep
from pandallm.data.files import read_records
from pandallm.data.steps import Turns, make_steps, run_steps
from pandallm.data.types import Turn

CHINESE = "今天的天气很好，我们一起去公园里散步。路边的花开了，有红的，也有白的，大家都很高兴！你也想来吗？"
ENGLISH = "The weather was fine today and we went to the park. Some flowers had opened along the way, and that made all of us happy. "


def run(text: str, step: CleanStep) -> tuple[Turns, str | None]:
    return run_steps((Turn(text, True),), [step])


def gopher(text: str, **changes: object) -> str | None:
    return run(text, GopherQualityStep.model_validate(changes))[1]


def test_gopher_keeps_running_text() -> None:
    assert gopher(CHINESE * 3) is None
    assert gopher(ENGLISH * 3) is None


def test_gopher_counts_eighteen_characters_as_ten_words() -> None:
    assert gopher("的是" * 44) == "gopher_length"
    assert gopher("的是" * 45) is None
    assert gopher("of the " * 24) == "gopher_length"
    assert gopher("of the " * 25, min_word_length=None) is None
    assert gopher(CHINESE, max_words=10, min_words=None) == "gopher_length"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CHINESE * 3 + "# " * 20, "gopher_symbols"),
        (CHINESE * 3 + "好…" * 20, "gopher_symbols"),
        ("\n".join("• " + CHINESE for _ in range(5)), "gopher_lines"),
        ("\n".join([CHINESE, CHINESE[:-1] + "…", CHINESE[:-1] + "..."]), "gopher_lines"),
        (CHINESE * 3 + " 1234 5678" * 20, "gopher_alphabet"),
        ("a bc " * 40, "gopher_word_length"),
        ("internationalisation " * 60, "gopher_word_length"),
        ("春眠觉晓处闻啼鸟夜来风雨声花落知多少" * 6, "gopher_stop_words"),
        ("Weather park flowers opened along happy " * 10, "gopher_stop_words"),
    ],
)
def test_gopher_drops(text: str, reason: str) -> None:
    assert gopher(text) == reason


def test_gopher_rules_can_be_switched_off() -> None:
    off = dict.fromkeys(GopherQualityStep.model_fields, None)
    del off["kind"]
    assert gopher("### 12 …", **off) is None


def test_c4_takes_lines_away() -> None:
    page = f"首页\n{CHINESE}\n更多…\n请打开 JavaScript 后再访问这个网页。\n版权所有，未经许可不得转载本站内容。\n参见[3]这里的说明文字。"
    turns, reason = run(page, C4QualityStep())
    assert reason is None
    assert turns == (Turn(f"{CHINESE}\n参见这里的说明文字。", True),)
    english = f"Home\n{ENGLISH}\nRead more...\nToo short.\nThis site uses cookies to make your visit better."
    assert run(english, C4QualityStep(min_sentences=2))[0] == (Turn(ENGLISH.strip(), True),)


def test_c4_leaves_conversations_as_they_are() -> None:
    turns = (Turn("你好\n", False), Turn("您好，请问有什么可以帮您？我在。好的。", True))
    assert run_steps(turns, [C4QualityStep()]) == (turns, None)
    assert run_steps((Turn(CHINESE, False),), [C4QualityStep()])[0] == (Turn(CHINESE, False),)


def test_c4_drops() -> None:
    assert run("只有一句话。", C4QualityStep())[1] == "c4_sentences"
    assert run("首页\n关于我们", C4QualityStep())[1] == "c4_sentences"
    assert run(CHINESE + "{", C4QualityStep())[1] == "c4_curly_bracket"
    assert run(CHINESE + "{", C4QualityStep(curly_bracket=False))[1] is None
    assert run(CHINESE + "Lorem Ipsum", C4QualityStep())[1] == "c4_lorem_ipsum"
    assert run("首页\n关于我们", C4QualityStep(min_sentences=None))[1] == "empty"


def fineweb(text: str, **changes: object) -> str | None:
    return run(text, FinewebQualityStep.model_validate(changes))[1]


def test_fineweb_by_hand() -> None:
    assert fineweb("\n".join([CHINESE, CHINESE[1:], CHINESE[2:]])) is None
    menu = ["今日新闻与各地最新消息一览", "体育赛事和比分的全部内容", "财经股市行情和数据总汇表"]
    assert fineweb("\n".join(menu)) == "fineweb_punctuation"
    assert fineweb("\n".join(menu), min_ended_lines=None) is None
    assert fineweb("\n".join([CHINESE, "甲。", "乙。", "丙。", "丁。"])) == "fineweb_short_lines"
    # Ten Chinese characters are 30 bytes and no longer short.
    assert fineweb("\n".join("一二三四五六七八九" + c for c in "甲乙丙。"), min_ended_lines=None) is None
    assert fineweb("\n".join("一二三四五六七八" + c for c in "甲乙丙。"), min_ended_lines=None) == "fineweb_short_lines"
    assert fineweb("\n".join([CHINESE, CHINESE, ENGLISH])) == "fineweb_duplicate_lines"
    lines = "\n".join(f"，，，，，，，，，，好{c}。" for c in "甲乙丙丁")
    assert fineweb(lines) == "fineweb_lines"
    assert fineweb(" \n ") == "empty"


@given(st.text(st.sampled_from("今天的是好。！…#•- \n{.ab1，"), max_size=80))
def test_any_text_comes_through(text: str) -> None:
    for step in (GopherQualityStep(min_words=None), C4QualityStep(), FinewebQualityStep()):
        turns, reason = run(text, step)
        assert len(turns) == 1
        assert reason is None or reason == "empty" or reason.split("_")[0] == step.kind.split("_")[0]


def test_little_of_real_encyclopedia_text_is_dropped() -> None:
    data = os.environ.get("PANDA_DATA")
    if not data:
        pytest.skip("set PANDA_DATA to the folder of real corpora")
    path = Path(data) / "corpora" / "wiki_cmrc2018.jsonl.zst"
    records = [record for _, record in read_records(path)][::8]
    texts = [str(record["text"]) for record in records if isinstance(record, dict)]
    steps = make_steps([GopherQualityStep(), C4QualityStep(curly_bracket=False), FinewebQualityStep()], "x")
    kept = [t for t in texts if steps((Turn(t, True),), "zh").reason is None]
    assert len(kept) >= 0.94 * len(texts)

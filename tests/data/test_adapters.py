"""Each adapter on records written in its published schema."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.adapters import ADAPTERS, Adapted, RecordError, Skip, get_adapter
from pandallm.data.files import read_records, resolve_files
from pandallm.data.spec import TemplatesSpec
from pandallm.data.types import Turn
from pandallm.errors import BadInput

RECORDS: dict[str, dict[str, Any]] = {
    "wudao": {
        "id": 2,
        "uniqueKey": "0a",
        "titleUkey": "1b",
        "dataType": "科技",
        "title": "新桥通车",
        "content": "市民前来观看。",
    },
    "clue": {"text": "第一句。\n第二句。"},
    "belle": {"instruction": "翻译成英文。", "input": "茶", "output": "tea"},
    "firefly": {"kind": "NLI", "input": "判断关系。", "target": "蕴含"},
    "flan": {"inputs": "Is tea hot?", "targets": "yes"},
    "messages": {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]},
    "moss": {"chat": {"turn_1": {"Human": "<|Human|>: 你好<eoh>\n", "MOSS": "<|MOSS|>: 你好！<eom>\n"}}},
    "sharegpt": {"id": "x", "conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "你好！"}]},
    "text": {"text": "山上有一座庙。"},
    "wiki": {"id": "1", "url": "https://example.org", "title": "茶", "text": "一种饮料。"},
    "news": {
        "news_id": "1",
        "keywords": "桥",
        "desc": "新桥今天通车。",
        "title": "新桥通车",
        "source": "某报",
        "time": "01-01 08:00",
        "content": "新桥今天通车。市民前来观看。",
    },
    "baike_qa": {
        "qid": "q1",
        "category": "生活",
        "title": "怎样煮茶？",
        "desc": "家里只有绿茶",
        "answer": "水八十度即可。",
    },
    "webtext_qa": {
        "qid": 1,
        "title": "猫为什么怕水？",
        "desc": "",
        "topic": "宠物",
        "star": 3,
        "content": "毛湿了会冷。",
        "answer_id": 5,
        "answerer_tags": "",
    },
    "translation": {"english": "The tea is hot.", "chinese": "茶是热的。"},
    "alpaca": {"instruction": "翻译成英文。", "input": "茶", "output": "tea"},
    "exam": {
        "textbox_q_instruction": "请做题。",
        "textbox_q_context": "甲比乙高。",
        "textbox_question": "谁高？\nA. 甲\nB. 乙",
        "textbox_answer": "A",
        "textbox_answer_analysis": "题目说甲高。",
    },
    "coig": {
        "instruction": "Say hi.",
        "input": "",
        "output": "hi",
        "trans_instruction": "打个招呼。",
        "trans_input": "",
        "trans_output": "你好",
    },
    "conversations": {
        "conversations": [
            {"from": "human", "value": "你好"},
            {"from": "gpt", "value": "你好！"},
            {"from": "human", "value": "天气呢？"},
            {"from": "gpt", "value": "晴。"},
        ]
    },
}


def turns(name: str, record: dict, **options: str) -> tuple[Turn, ...]:
    result = ADAPTERS[name].adapt(record, options)
    assert isinstance(result, Adapted)
    return result.turns


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_a_published_record_gives_turns_that_end_trained_and_separated(name: str) -> None:
    got = turns(name, RECORDS[name])
    assert got[-1].train
    for turn in got:
        assert turn.text.strip()
        assert turn.train or turn.text.endswith("\n")
    assert turns(name, dict(reversed(RECORDS[name].items()))) == got


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("text", "text"),
        ("wiki", "title"),
        ("wudao", "title"),
        ("wudao", "content"),
        ("clue", "text"),
        ("belle", "output"),
        ("firefly", "input"),
        ("flan", "targets"),
        ("messages", "messages"),
        ("wiki", "text"),
        ("news", "content"),
        ("baike_qa", "answer"),
        ("webtext_qa", "content"),
        ("translation", "chinese"),
        ("alpaca", "output"),
        ("exam", "textbox_answer"),
        ("conversations", "conversations"),
    ],
)
def test_a_missing_or_wrong_field_is_named(name: str, needed: str) -> None:
    record = {k: v for k, v in RECORDS[name].items() if k != needed}
    with pytest.raises(RecordError, match=f"`{needed}` is missing"):
        ADAPTERS[name].adapt(record, {})
    with pytest.raises(RecordError, match=f"`{needed}` is not"):
        ADAPTERS[name].adapt({**record, needed: 7}, {})


def test_the_registry_and_the_settings_know_the_same_adapters() -> None:
    from typing import get_args

    from pandallm.data.spec import AdapterName

    assert set(get_args(AdapterName)) == set(ADAPTERS)
    assert set(RECORDS) == set(ADAPTERS)


def test_wudao_puts_the_title_once() -> None:
    assert turns("wudao", RECORDS["wudao"])[0].text == "新桥通车\n\n市民前来观看。"
    assert turns("wudao", {"title": "茶", "content": "茶是饮料。"})[0].text == "茶是饮料。"


def test_wiki_puts_the_title_once() -> None:
    assert turns("wiki", RECORDS["wiki"])[0].text == "茶\n\n一种饮料。"
    assert turns("wiki", {"title": "茶", "text": "茶\n\n一种饮料。"})[0].text == "茶\n\n一种饮料。"


def test_news_takes_the_description_only_when_asked() -> None:
    assert turns("news", RECORDS["news"])[0].text == "新桥通车\n新桥今天通车。市民前来观看。"
    assert turns("news", RECORDS["news"], desc="use")[0].text.count("新桥今天通车。") == 2


def test_answers_alone_are_trained() -> None:
    prompt, answer = turns("baike_qa", RECORDS["baike_qa"])
    assert (prompt.train, answer) == (False, Turn("水八十度即可。", True))
    assert "怎样煮茶？\n家里只有绿茶" in prompt.text
    prompt, answer = turns("webtext_qa", RECORDS["webtext_qa"])
    assert "猫为什么怕水？" in prompt.text
    assert answer.text == "毛湿了会冷。"


def test_templates_vary_by_content_and_not_by_number() -> None:
    def prompt(i: int, qid: str = "q") -> str:
        record = RECORDS["baike_qa"] | {"qid": qid, "answer": f"答案{i}"}
        return turns("baike_qa", record)[0].text

    assert len({prompt(i) for i in range(40)}) == 4
    assert prompt(1, "a") == prompt(1, "b")


def test_a_post_without_question_uses_its_topic() -> None:
    record = RECORDS["webtext_qa"] | {"title": "", "desc": ""}
    assert "宠物" in turns("webtext_qa", record)[0].text
    assert ADAPTERS["webtext_qa"].adapt(record | {"topic": ""}, {}) == Skip("no_question")


def test_translation_directions() -> None:
    record = RECORDS["translation"]
    assert turns("translation", record, direction="en-zh")[1].text == "茶是热的。"
    assert turns("translation", record, direction="zh-en")[1].text == "The tea is hot."
    languages = [
        ADAPTERS["translation"].adapt({"english": f"tea {i}", "chinese": f"茶 {i}"}, {}).language  # type: ignore[union-attr]
        for i in range(200)
    ]
    assert 70 < languages.count("zh") < 130
    assert ADAPTERS["translation"].adapt({"english": "tea", "chinese": " "}, {}) == Skip("untranslated")


def test_alpaca_languages_of_the_parallel_form() -> None:
    record = RECORDS["coig"]
    assert turns("alpaca", record) == (Turn("Say hi.\n", False), Turn("hi", True))
    assert turns("alpaca", record, language="zh") == (Turn("打个招呼。\n", False), Turn("你好", True))
    assert turns("alpaca", record, language="both")[1].text in ("hi", "你好")
    assert turns("alpaca", RECORDS["alpaca"])[0].text == "翻译成英文。\n茶\n"


def test_exam_and_its_analysis() -> None:
    assert turns("exam", RECORDS["exam"]) == (
        Turn("请做题。\n甲比乙高。\n谁高？\nA. 甲\nB. 乙\n", False),
        Turn("A\n\n题目说甲高。", True),
    )
    short = RECORDS["exam"] | {"textbox_q_context": "", "textbox_answer_analysis": ""}
    assert turns("exam", short) == (Turn("请做题。\n谁高？\nA. 甲\nB. 乙\n", False), Turn("A", True))


def test_coig_tells_its_shapes_apart() -> None:
    assert turns("coig", RECORDS["coig"]) == (Turn("打个招呼。\n", False), Turn("你好", True))
    assert turns("coig", RECORDS["exam"]) == turns("exam", RECORDS["exam"])
    assert turns("coig", RECORDS["conversations"]) == turns("conversations", RECORDS["conversations"])
    assert turns("coig", RECORDS["alpaca"]) == turns("alpaca", RECORDS["alpaca"])
    counterfactual = {"instruction": "改错。", "conversations": [{"question": "一加一？", "answer": "二"}]}
    assert turns("coig", counterfactual) == (Turn("改错。\n一加一？\n", False), Turn("二", True))
    with pytest.raises(RecordError, match="none of `textbox_question`"):
        ADAPTERS["coig"].adapt({"x": 1}, {})


def test_conversations_keep_their_turns() -> None:
    got = turns("conversations", RECORDS["conversations"])
    assert [t.train for t in got] == [False, True, False, True]
    assert [t.text for t in got] == ["你好\n", "你好！", "天气呢？\n", "晴。"]
    open_end = {"conversations": [*RECORDS["conversations"]["conversations"], {"from": "human", "value": "再见"}]}
    assert turns("conversations", open_end) == got
    with pytest.raises(RecordError, match="'narrator'"):
        ADAPTERS["conversations"].adapt({"conversations": [{"from": "narrator", "value": "x"}]}, {})


def test_unknown_options_are_refused_in_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"corpora\.c\.sources\.w\.options: adapter wiki has no option 'x'; it has none"):
        get_adapter("wiki", {"x": "1"}, "corpora.c.sources.w")
    with pytest.raises(BadInput, match="choose one of en-zh, zh-en, both-by-hash"):
        get_adapter("translation", {"direction": "fr"}, "w")
    with pytest.raises(BadInput, match="'nope' is unknown"):
        get_adapter("nope", {}, "w")


# ---- instruction templates


def _source(tmp_path: Path, text: str, adapter: str = "baike_qa", seed: int = 0) -> Any:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return get_adapter(adapter, {}, "corpora.c.sources.s", TemplatesSpec(file=str(path), seed=seed))


def test_own_templates_are_drawn_by_content_and_seed(tmp_path: Path) -> None:
    text = "version: 1\ntemplates:\n" + "".join(f'  - "T{i} {{question}}"\n' for i in range(8))

    def prompts(seed: int) -> list[str]:
        adapter = _source(tmp_path, text, seed=seed)
        records = [RECORDS["baike_qa"] | {"answer": f"答案{i}"} for i in range(60)]
        return [adapter.adapt(r, {}).turns[0].text for r in records]

    first = prompts(0)
    assert {p[:2] for p in first} == {f"T{i}" for i in range(8)}
    assert all(p.endswith("怎样煮茶？\n家里只有绿茶\n") for p in first)
    assert first == prompts(0)
    assert first != prompts(1)


def test_named_templates_are_those_of_the_package() -> None:
    named = get_adapter("webtext_qa", {}, "w", TemplatesSpec(file="webtext_qa"))
    assert named.adapt(RECORDS["webtext_qa"], {}) == ADAPTERS["webtext_qa"].adapt(RECORDS["webtext_qa"], {})


def test_the_draw_of_seed_0_is_settled() -> None:
    """The bytes of every corpus with instructions rest on these."""
    assert turns("baike_qa", RECORDS["baike_qa"])[0].text == "怎样煮茶？\n家里只有绿茶\n请针对以上问题给出你的回答：\n"
    prompts = [turns("baike_qa", RECORDS["baike_qa"] | {"answer": str(i)})[0].text[:2] for i in range(12)]
    assert "".join(prompts) == "有人怎样有人有人问题请回有人怎样请回请回怎样怎样"


def test_a_side_without_template_is_a_ledger_line(tmp_path: Path) -> None:
    adapter = _source(tmp_path, "version: 1\ntemplates: ['Translate: {english}']\n", "translation")
    assert adapter.adapt(RECORDS["translation"], {"direction": "zh-en"}) == Skip("no_template")
    assert adapter.adapt(RECORDS["translation"], {"direction": "en-zh"}).turns[0].text == "Translate: The tea is hot.\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "version: 1\ntemplates:\n  - '{question}'\n  - '{frage}'\n",
            r"own.yaml:4: unknown placeholder {frage}; .* fills {question}",
        ),
        (
            "version: 1\ntemplates:\n  - 'no placeholder'\n",
            "own.yaml:3: a template must hold exactly one placeholder, {question}",
        ),
        ("version: 2\ntemplates: ['{question}']\n", "own.yaml:1: the version must be 1"),
        ("templates: ['{question}']\n", "own.yaml:1: the version must be 1"),
        ("version: 1\ntemplates: []\n", "own.yaml: no templates"),
        ("version: 1\nprompts: []\n", "own.yaml:2: unknown field 'prompts'"),
        ("version: 1\ntemplates:\n  - [x]\n", "own.yaml:3: a template must be a text"),
        ("- x\n", "own.yaml: not a mapping"),
        ("version: 1\ntemplates: ['\n", "own.yaml:.*not valid YAML"),
    ],
)
def test_bad_templates_are_told_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        _source(tmp_path, text)


def test_templates_where_there_is_none_or_none_is_taken() -> None:
    with pytest.raises(BadInput, match=r"corpora\.c\.sources\.s\.templates: there are no templates nowhere"):
        get_adapter("baike_qa", {}, "corpora.c.sources.s", TemplatesSpec(file="nowhere"))
    with pytest.raises(
        BadInput, match="adapter wiki takes no templates; those that do are baike_qa, translation, webtext_qa"
    ):
        get_adapter("wiki", {}, "w", TemplatesSpec(file="baike_qa"))


# ---- any record, the documentation

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(["user", "human", "gpt", "Human: a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["from", "value", "role", "content", "question", "human", "response", "Q", "turn_1", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
_more = (
    "conversations",
    "conversation",
    "plain_text",
    "round_0",
    "target",
    "trans_instruction",
    "trans_output",
    "output",
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_record_is_an_example_or_a_ledger_line_or_an_error_that_names_a_field(data: st.DataObject) -> None:
    adapter = ADAPTERS[data.draw(st.sampled_from(sorted(ADAPTERS)))]
    names = data.draw(st.lists(st.sampled_from([*adapter.fields, *_more]), max_size=8, unique=True))
    record = {name: data.draw(_values) for name in names}
    options = {
        k: data.draw(st.sampled_from(v or ("text",))) for k, v in adapter.options.items() if data.draw(st.booleans())
    }
    try:
        result: Adapted | Skip | str = adapter.adapt(record, options)
    except RecordError as e:
        result = str(e)
    if isinstance(result, str):
        assert "`" in result
    elif isinstance(result, Adapted):
        assert result.turns[-1].train
        assert all(t.text.strip() and (t.train or t.text.endswith("\n")) for t in result.turns)
        assert result == adapter.adapt(dict(reversed(record.items())), options)
    else:
        assert result.reason


def test_the_documentation_names_every_adapter_its_fields_and_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for adapter in ADAPTERS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{adapter.name}` |"))
        for option in adapter.options:
            assert f"`{option}" in row, (adapter.name, option)
        if adapter.name not in ("coig", "moss"):
            assert all(field in row for field in adapter.fields), adapter.name
    for adapter in ADAPTERS.values():
        for placeholder in adapter.placeholders:
            assert f"`{{{placeholder}}}`" in page


# ---- real text

REAL = {
    "corpora/baikeqa_*": "baike_qa",
    "corpora/news_*": "news",
    "corpora/translation_*": "translation",
    "corpora/webtext_*": "webtext_qa",
    "corpora/mixed_cluecorpussmall_*": "clue",
    "corpora/wiki_*": "wiki",
    "instruct/alpaca_*": "alpaca",
    "instruct/exam_*": "coig",
    "instruct/leetcode_*": "coig",
    "instruct/kdconv_*": "conversations",
    "instruct/mixed_*": "belle",
    "instruct/moss_*": "moss",
    "instruct/sharegpt_*": "sharegpt",
}


@pytest.mark.parametrize("pattern", sorted(REAL))
def test_records_of_real_corpora_fit_their_adapters(real_data: Path, pattern: str) -> None:
    results = [
        ADAPTERS[REAL[pattern]].adapt(record, {}) if isinstance(record, dict) else record
        for path in resolve_files(f"{real_data}/{pattern}", "w")
        for _, record in islice(read_records(path), 150)
    ]
    assert len(results) >= 150
    assert sum(isinstance(r, Adapted) for r in results) >= 0.95 * len(results)

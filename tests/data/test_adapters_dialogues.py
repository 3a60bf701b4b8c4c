"""Adapters of conversations and of instruction sets: records in their published schemas, written by hand."""

import json
from typing import Any

import pytest

from pandallm.data.adapters import ADAPTERS, Adapted, RecordError, Skip
from pandallm.data.types import Turn

#: What any two-round dialogue of these tests becomes.
TWO_ROUNDS = (Turn("你好\n", False), Turn("你好！", True), Turn("天气呢？\n", False), Turn("晴。", True))


def turns(name: str, record: dict[str, Any], **options: str) -> tuple[Turn, ...]:
    result = ADAPTERS[name].adapt(record, options)
    assert isinstance(result, Adapted), result
    return result.turns


def refused(name: str, record: dict[str, Any], match: str) -> None:
    with pytest.raises(RecordError, match=match):
        ADAPTERS[name].adapt(record, {})


# ---- COIG's five subsets


def test_coig_translated_instructions() -> None:
    record = {
        "task_name_in_eng": "task1",
        "instruction": "Say hi.",
        "input": "to Ann",
        "output": "hi",
        "trans_instruction": "打个招呼。",
        "trans_input": "对安",
        "trans_output": "你好",
    }
    assert turns("coig", record) == (Turn("打个招呼。\n对安\n", False), Turn("你好", True))
    assert turns("coig", record, language="en") == (Turn("Say hi.\nto Ann\n", False), Turn("hi", True))


def test_coig_exam_has_answer_then_analysis() -> None:
    record = {
        "subject": "物理",
        "textbox_q_instruction": "请做题。",
        "textbox_q_context": "",
        "textbox_question": "光速约为多少？",
        "textbox_answer": "A",
        "textbox_answer_analysis": "真空中约三十万千米每秒。",
    }
    assert turns("coig", record)[-1] == Turn("A\n\n真空中约三十万千米每秒。", True)
    assert turns("coig", record | {"textbox_answer": ""})[-1] == Turn("真空中约三十万千米每秒。", True)
    without = {k: v for k, v in record.items() if k != "textbox_answer_analysis"}
    assert turns("coig", without)[-1] == Turn("A", True)


def test_coig_human_value_alignment_and_leetcode() -> None:
    record = {"instruction": "请解题。", "input": "两数之和", "output": "用哈希表。"}
    assert turns("coig", record) == (Turn("请解题。\n两数之和\n", False), Turn("用哈希表。", True))


def _round(question: str, answer: str) -> dict[str, str]:
    return {"prompt": "...", "response": json.dumps({"Q": question, "A": answer}, ensure_ascii=False)}


def test_coig_counterfactual_chat_keeps_its_rounds() -> None:
    record = {"entity": "天气", "round_1": _round("天气呢？", "晴。"), "round_0": _round("你好", "你好！")}
    assert turns("coig", record) == TWO_ROUNDS
    many = {f"round_{i}": _round(f"问{i}", f"答{i}") for i in reversed(range(11))}
    assert [t.text for t in turns("coig", many)][-2:] == ["问10\n", "答10"]
    fenced = {"round_0": {"response": '```json\n{"Q": "问", "A": "答"}\n```'}}
    assert turns("coig", fenced) == (Turn("问\n", False), Turn("答", True))
    refused("coig", {"round_0": {"response": "no json"}}, "`response` of `round_0` is not JSON")
    refused("coig", {"round_0": {"response": '{"Q": "问"}'}}, "`A` is missing")
    refused("coig", {"round_0": "text"}, "`round_0` is not an object but str")


def test_coig_of_no_known_shape() -> None:
    refused("coig", {"x": 1}, r"none of `textbox_question`, .* is there \(fields: x\)")


# ---- instruction sets


def test_belle_single_turns() -> None:
    assert turns("belle", {"instruction": "翻译。", "input": "茶", "output": "\ntea"}) == (
        Turn("翻译。\n茶\n", False),
        Turn("tea", True),
    )
    assert turns("belle", {"input": "问", "target": "答"}) == (Turn("问\n", False), Turn("答", True))


def test_belle_multi_turn_forms() -> None:
    inside = {"instruction": "Human:你好\nAssistant:你好！\nHuman:天气呢？\nAssistant:", "input": "", "output": "晴。"}
    assert turns("belle", inside) == TWO_ROUNDS
    listed = {
        "id": "1",
        "conversations": [{"from": "human", "value": "你好"}, {"from": "assistant", "value": "你好！"}],
    }
    assert turns("belle", listed) == TWO_ROUNDS[:2]
    quoted = {"instruction": "人的英文是 Human: 吗？", "input": "", "output": "是。"}
    assert turns("belle", quoted) == (Turn("人的英文是 Human: 吗？\n", False), Turn("是。", True))
    several_lines = {"instruction": "Human: 写诗\n两行\nAssistant:", "input": "", "output": "好"}
    assert turns("belle", several_lines)[0] == Turn("写诗\n两行\n", False)
    refused("belle", {"x": 1}, "`output` is missing")


def test_firefly_and_flan() -> None:
    assert turns("firefly", {"kind": "NLI", "input": "前提", "target": "蕴含"}) == (
        Turn("前提\n", False),
        Turn("蕴含", True),
    )
    flan = {"inputs": "Q: tea?\nA:", "targets": "yes", "_task_name": "qa", "_template_idx": 3}
    assert turns("flan", flan) == (Turn("Q: tea?\nA:\n", False), Turn("yes", True))
    assert ADAPTERS["flan"].adapt({"inputs": "Q", "targets": " "}, {}) == Skip("no_answer")
    refused("firefly", {"kind": "x", "input": "y"}, "`target` is missing")


# ---- conversations


def test_sharegpt_in_its_forms() -> None:
    said = [("human", "你好"), ("gpt", "你好！"), ("human", "天气呢？"), ("gpt", "晴。")]
    record = {"id": "a", "conversations": [{"from": f, "value": v} for f, v in said]}
    assert turns("sharegpt", record) == TWO_ROUNDS
    begun = {"conversations": [{"from": "gpt", "value": "（上文）"}, *record["conversations"]]}  # type: ignore[misc]
    assert turns("sharegpt", begun) == TWO_ROUNDS
    chinese = {
        "conversation_id": "1",
        "category": "x",
        "conversation": [{"human": "你好", "assistant": "你好！"}, {"human": "天气呢？", "assistant": "晴。"}],
    }
    assert turns("sharegpt", chinese) == TWO_ROUNDS
    refused("sharegpt", {"id": "a"}, "none of `conversations`, `conversation` is there")
    refused("sharegpt", {"conversations": {}}, "`conversations` is not a list but dict")
    refused("sharegpt", {"conversations": ["x"]}, "element 1 of `conversations` is not an object but str")


def _moss_turn(human: str, moss: str, command: str = "None") -> dict[str, str]:
    return {
        "Human": f"<|Human|>: {human}<eoh>\n",
        "Inner Thoughts": "<|Inner Thoughts|>: 想一想<eot>\n",
        "Commands": f"<|Commands|>: {command}<eoc>\n",
        "Tool Responses": "<|Results|>:\nNone\n<eor>\n",
        "MOSS": f"<|MOSS|>: {moss}<eom>\n",
    }


def test_moss_003() -> None:
    record = {
        "conversation_id": 1,
        "meta_instruction": "You are MOSS.\n",
        "num_turns": 2,
        "chat": {"turn_2": _moss_turn("天气呢？", "晴。"), "turn_1": _moss_turn("你好", "你好！")},
        "category": "Writing",
    }
    assert turns("moss", record) == TWO_ROUNDS
    assert turns("moss", record, meta="use") == (Turn("You are MOSS.\n", False), *TWO_ROUNDS)
    plain = {"chat": {"turn_1": {"Human": "你好", "MOSS": "你好！"}}}
    assert turns("moss", plain) == TWO_ROUNDS[:2]
    ten = {"chat": {f"turn_{i}": _moss_turn(f"问{i}", f"答{i}") for i in range(1, 12)}}
    assert turns("moss", ten)[-1].text == "答11"
    refused("moss", {"chat": {"turn_1": {"Human": "x"}}}, "`MOSS` is missing")
    refused("moss", {"chat": {"first": {}}}, "'first'; turns are named turn_1")
    refused("moss", {"chat": []}, "`chat` is not an object but list")
    refused("moss", {"id": 1}, "none of `chat`, `plain_text`")


def test_moss_with_tools_is_skipped_unless_asked_for() -> None:
    record = {"chat": {"turn_1": _moss_turn("12 * 12？", "144。", 'Calculate("12*12")')}}
    assert ADAPTERS["moss"].adapt(record, {}) == Skip("tools")
    assert turns("moss", record, tools="keep") == (Turn("12 * 12？\n", False), Turn("144。", True))


def test_moss_002_plain_text() -> None:
    text = "[Human]: 你好<eoh> [MOSS]: 你好！<eoa> [Human]: 天气呢？<eoh> [MOSS]: 晴。<eoa> "
    assert turns("moss", {"plain_text": text, "num_turns": 2}) == TWO_ROUNDS
    marked = "<|Human|>: 你好<eoh>\n<|MOSS|>: 你好！<eom>\n"
    assert turns("moss", {"plain_text": marked}) == TWO_ROUNDS[:2]
    refused("moss", {"plain_text": "你好"}, "holds no message that begins with")


def _said(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **more}


def test_openai_messages() -> None:
    two = [("user", "你好"), ("assistant", "你好！"), ("user", "天气呢？"), ("assistant", "晴。")]
    assert turns("messages", _said(*two)) == TWO_ROUNDS
    told = (Turn("简短回答。\n", False), *TWO_ROUNDS)
    assert turns("messages", _said(("system", "简短"), ("developer", "回答。"), *two)) == (
        Turn("简短\n回答。\n", False),
        *TWO_ROUNDS,
    )
    assert turns("messages", _said(("system", "简短回答。"), *two)) == told
    later = turns("messages", _said(*two[:2], ("system", "简短回答。"), *two[2:]))
    assert later == (*TWO_ROUNDS[:2], Turn("简短回答。\n天气呢？\n", False), TWO_ROUNDS[3])
    parts = [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]
    assert turns("messages", _said(("user", parts), *two[1:])) == TWO_ROUNDS
    record = _said(*two)
    record["messages"][1]["weight"] = 0
    assert turns("messages", record) == (Turn("你好\n你好！\n天气呢？\n", False), Turn("晴。", True))
    assert ADAPTERS["messages"].adapt(_said(("user", "你好")), {}) == Skip("no_answer")
    refused("messages", {"prompt": "x"}, "`messages` is missing")
    refused("messages", _said(("narrator", "x")), "message 1 has `role` 'narrator'")
    refused("messages", {"messages": [{"role": "user"}]}, "message 1 has no `content`")
    refused("messages", _said(("user", 5)), "`content of message 1` is not a list but int")


def test_openai_messages_with_tools_or_pictures() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "weather"}}]}
    record = _said(("user", "天气呢？"))
    record["messages"] += [call, {"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    record["messages"].append({"role": "assistant", "content": "晴。"})
    assert ADAPTERS["messages"].adapt(record, {}) == Skip("tools")
    assert turns("messages", record, tools="text") == TWO_ROUNDS[2:]
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert ADAPTERS["messages"].adapt(_said(("user", picture), ("assistant", "猫")), {}) == Skip("not_text")


def test_a_system_message_before_the_first_question_is_a_turn_of_its_own() -> None:
    said = [
        {"from": "system", "value": "简短回答。"},
        {"from": "human", "value": "你好"},
        {"from": "gpt", "value": "你好！"},
    ]
    told = (Turn("简短回答。\n", False), *TWO_ROUNDS[:2])
    assert turns("conversations", {"conversations": said}) == told
    # An instruction of the record itself is part of the question.
    with_instruction = turns("conversations", {"instruction": "请答。", "conversations": said})
    assert with_instruction == (Turn("请答。\n简短回答。\n你好\n", False), TWO_ROUNDS[1])

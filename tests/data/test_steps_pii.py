"""Personal data. Every number here is made up; the identity cards are of a place code that was never given out."""

import re
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.data.clean_spec import PERSONAL_DATA, PiiStep
from pandallm.data.steps import make_steps
from pandallm.data.steps.pii import (
    _PHONE,
    _RULES,
    PLACEHOLDERS,
    _sub_near,
    is_bank_card,
    is_id_card,
    is_public_ip,
    make_masker,
)
from pandallm.data.types import Turn

PUNCTUATION = "，。！？；：、（）《》“”‘’「」『』【】…—～·"


def masked(text: str, **changes: object) -> str:
    return make_masker(PiiStep.model_validate(changes))(text, {})


def id_card(first: str) -> str:
    """17 digits with their check character."""
    weights = [2 ** (17 - i) % 11 for i in range(17)]
    rest = (12 - sum(w * int(d) for w, d in zip(weights, first, strict=True)) % 11) % 11
    return first + ("X" if rest == 10 else str(rest))


def card(first: str) -> str:
    """Digits with Luhn's check digit."""
    for last in "0123456789":
        digits = [int(d) for d in first + last][::-1]
        if (sum(digits[::2]) + sum(sum(map(int, str(2 * d))) for d in digits[1::2])) % 10 == 0:
            return first + last
    raise AssertionError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("邮箱：zhang.san_01@mail.example.cn。", "邮箱：<mail>。"),
        ("a@b.co, or <c-d@e.org>", "<mail>, or <<mail>>"),
        ("图片 icon@2x.png", "图片 icon@2x.png"),
        ("电话13800001234，谢谢", "电话<phone>，谢谢"),
        ("+86 138-0000-1234", "<phone>"),
        ("１３８００００１２３４", "<phone>"),
        ("（010）62340000", "（010）<phone>"),
        ("(010) 62340000", "<phone>"),
        ("0755-2634000转8", "<phone>转8"),
        ("0755-26340000转8", "<phone>转8"),
        ("021 6234 0000", "<phone>"),
        ("400-820-0000", "<phone>"),
        ("call 212-555-0100 now", "call <phone> now"),
        ("+44 20 7946 0000", "<phone>"),
        ("2018-2019年，12345678901234", "2018-2019年，12345678901234"),
        ("圆周率3.14159265358979", "圆周率3.14159265358979"),
        ("2023-01-15 12:30:45", "2023-01-15 12:30:45"),
        ("1380000123", "1380000123"),
        ("138000012345", "138000012345"),
        ("服务器47.94.12.200：80", "服务器<ip>：80"),
        ("本机127.0.0.1和192.168.1.10", "本机127.0.0.1和192.168.1.10"),
        ("见3.1.2.1节，版本1.7.20.4", "见3.1.2.1节，版本1.7.20.4"),
        ("2400:3200::1 是", "<ip> 是"),
        ("12:34:56", "12:34:56"),
        ("@张三：你好 @li_si", "@<name>：你好 @<name>"),
        ("＠李四，", "@<name>，"),
        ("谢谢@张三。", "谢谢@<name>。"),
        ("a1@张三", "a1@张三"),
        ("@Override\npublic @param x", "@Override\npublic @param x"),
        ("@property\n", "@property\n"),
        ("@app.route('/')", "@app.route('/')"),
        ("https://medium.com/@someone", "https://medium.com/@someone"),
        ("价格 @ 5", "价格 @ 5"),
    ],
)
def test_by_hand(text: str, wanted: str) -> None:
    assert masked(text) == wanted


def test_identity_cards_are_checked() -> None:
    good = id_card("99999919900307123")
    assert is_id_card(good)
    assert masked(f"身份证号{good}。") == "身份证号<id>。"
    wrong = good[:-1] + ("1" if good[-1] != "1" else "2")
    assert masked(f"编号{wrong}。", mask=["id_card"]) == f"编号{wrong}。"
    assert not is_id_card(id_card("99999919900230123"))  # 30 February
    # Published test vector of GB 11643-1999.
    assert is_id_card("11010519491231002X")


def test_bank_cards_are_checked() -> None:
    good = card("622200000000000123")
    assert is_bank_card(good)
    assert masked(f"卡号{good}，") == "卡号<card>，"
    grouped = card("622200000000012")
    grouped = " ".join(grouped[i : i + 4] for i in range(0, 16, 4))
    assert masked(grouped) == "<card>"
    wrong = good[:-1] + str((int(good[-1]) + 1) % 10)
    assert masked(wrong) == wrong
    assert not is_bank_card("4" * 16)


def test_addresses_that_belong_to_nobody() -> None:
    assert is_public_ip("47.94.12.200")
    for text in ("10.20.30.40", "300.10.10.10", "1.2.3.4", "fe80::1", "192.168.10.10"):
        assert not is_public_ip(text), text


def test_kinds_and_placeholders_are_chosen() -> None:
    text = "a@b.co 13800001234"
    assert masked(text, mask=["phone"]) == "a@b.co <phone>"
    assert masked(text, placeholders={"mail": "[邮箱]"}) == "[邮箱] <phone>"
    counts: dict[str, int] = {}
    mask = make_masker(PiiStep(placeholders={"name": "@用户"}))
    assert mask("@张三，你好 @用户", counts) == "@用户，你好 @用户"
    assert counts == {"name": 1}
    for bad in ("000", "a@b", "x@"):
        with pytest.raises(ValueError, match="placeholder of mail"):
            PiiStep(placeholders={"mail": bad})


def test_the_step_masks_turn_by_turn_and_counts() -> None:
    turns = (Turn("我是13800001234，", False), Turn("写信到a@b.co或13900001234", True))
    cleaned = make_steps([PiiStep()], "x")(turns, "zh")
    assert cleaned.turns == (Turn("我是<phone>，", False), Turn("写信到<mail>或<phone>", True))
    assert cleaned.masked == {"phone": 2, "mail": 1}
    assert cleaned.reason is None
    assert make_steps([PiiStep()], "x")((Turn("无", True),), "zh").masked is None


PIECES = [
    "13800001234",
    "a@b.co",
    "@张三",
    "（010）",
    "62340000",
    "47.94.12.200",
    "1",
    "9",
    "-",
    " ",
    ".",
    "@",
    "+86",
    "版",
    "x",
    *PUNCTUATION,
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12).map("".join))
def test_chinese_punctuation_is_never_touched_and_masking_twice_changes_nothing(text: str) -> None:
    once = masked(text)
    assert [c for c in once if c in PUNCTUATION] == [c for c in text if c in PUNCTUATION]
    assert masked(once) == once


@given(st.lists(st.sampled_from([*PIECES, "文字" * 9]), max_size=25).map("".join))
def test_looking_near_long_numbers_only_finds_the_same(text: str) -> None:
    for pattern in {rule.pattern for rule in _RULES if rule.kind in ("phone", "id_card", "bank_card")}:
        assert _sub_near(pattern, lambda _: "#", text) == pattern.sub("#", text)


def test_every_kind_has_a_rule_and_a_placeholder() -> None:
    assert {rule.kind for rule in _RULES} == set(PERSONAL_DATA) == set(PLACEHOLDERS)
    assert partial(re.sub, _PHONE, "#")("13800001234") == "#"

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Asked
from pandallm.evaluate.encode import encode_asked, encode_prompts, encode_questions, shorten, tokenize

PASSAGE = "小明住在湖边的城里，" * 30
BEFORE, AFTER = "读：", "\n问题：他住在哪里？\n答案："
OPTIONS = ("湖边", "山上的城里")


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_folder)


def long_question(passage: str = PASSAGE) -> Asked:
    return Asked(BEFORE + passage + AFTER, OPTIONS, (len(BEFORE), len(BEFORE) + len(passage)))


def test_only_the_middle_of_the_passage_is_cut_and_as_little_as_possible(tokenizer: Any) -> None:
    (encoded,) = encode_asked(tokenizer, [long_question()], 160)
    assert encoded.truncated == 2
    for request, option in zip(encoded.requests, OPTIONS):
        text = tokenizer.decode(request.tokens)
        assert text.startswith(BEFORE + "小明住在湖边")
        assert text.endswith("城里，" + AFTER + option)
        assert len(request.tokens) <= 161
        assert tokenizer.decode(request.tokens[request.start :]) == option
    assert max(len(r.tokens) for r in encoded.requests) > 161 - 12  # one more character would not fit


def test_prompts_that_fit_are_the_harness_rule(tokenizer: Any) -> None:
    asked = [long_question("短文。"), Asked("答案： ", OPTIONS)]
    assert encode_asked(tokenizer, asked, 160) == encode_questions(
        tokenizer, [(a.context, a.continuations) for a in asked], 160
    )


def test_a_prompt_that_does_not_fit_without_its_passage_is_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match=r"even without its passage.*答案："):
        encode_asked(tokenizer, [long_question()], 12)
    with pytest.raises(BadInput, match="no passage that may be cut"):
        encode_asked(tokenizer, [Asked(PASSAGE, OPTIONS)], 160)
    with pytest.raises(BadInput, match="longer than the model's 12 tokens"):
        encode_prompts(tokenizer, [long_question()], 12)


def test_prompts_to_continue_keep_their_question(tokenizer: Any) -> None:
    (ids, cut), (short, uncut), (empty, _) = encode_prompts(
        tokenizer, [long_question(), Asked("问题：", ()), Asked("", ())], 100
    )
    assert cut
    assert not uncut
    assert len(ids) <= 100
    assert tokenizer.decode(ids).endswith(AFTER)
    assert tokenizer.decode(ids).startswith(BEFORE)
    assert short == tokenizer.encode("问题：")
    assert empty == [tokenizer.eos_token_id]


@settings(max_examples=100, deadline=None)
@given(
    st.text("ab", max_size=8), st.text("xyz", min_size=1, max_size=30), st.text("cd", max_size=8), st.integers(0, 40)
)
def test_shortened_text_is_the_longest_that_fits(before: str, passage: str, after: str, limit: int) -> None:
    asked = Asked(before + passage + after, ("A",), (len(before), len(before) + len(passage)))
    if len(before) + len(after) > limit:
        with pytest.raises(BadInput):
            shorten(asked, lambda text: len(text) <= limit, limit)
        return
    if len(asked.context) <= limit:
        return
    text = shorten(asked, lambda text: len(text) <= limit, limit)
    assert len(text) == limit
    assert text.startswith(before)
    assert text.endswith(after)
    kept = text[len(before) : len(text) - len(after)]
    head = (len(kept) + 1) // 2
    assert passage.startswith(kept[:head])
    assert passage.endswith(kept[head:])


def test_the_start_token_is_not_doubled(tokenizer: Any) -> None:
    class Beginning:
        """Adds its start token, as Llama's tokenizer does."""

        bos_token_id = eos_token_id = 0

        def decode(self, ids: list[int]) -> str:
            return str(tokenizer.decode(ids))

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [0] * add_special_tokens + list(tokenizer.encode(text))

        def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
            return {"input_ids": [self.encode(t, add_special_tokens) for t in texts]}

    plain, templated = tokenize(Beginning(), ["问题", "<eos>问题"])
    assert plain == templated == [0, *tokenizer.encode("问题")]

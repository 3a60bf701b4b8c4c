from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pandallm.evaluate.choices import NO_TOKENS
from pandallm.evaluate.encode import Encoded, Request, encode_questions
from pandallm.evaluate.likelihood import Row, Scorer, batches, build_rows
from pandallm.evaluate.prompts import render
from pandallm.evaluate.tree_attention import tree_layout
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

MAX = 160


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32
    ).eval(), AutoTokenizer.from_pretrained(model_folder)


def harness_score(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """lm-evaluation-harness 0.4.13, written out for one pair: `_encode_pair`, then `_loglikelihood_tokens`."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    if context:
        whole, c = tokenizer.encode(context + continuation), tokenizer.encode(context)
        k = whole[len(c) :]
    else:
        c, k = [tokenizer.eos_token_id], tokenizer.encode(continuation, add_special_tokens=False)
    inputs = (c + k)[-(MAX + 1) :][:-1]
    with torch.inference_mode():
        logits = model(torch.tensor([inputs])).logits[0].float()
    scores = torch.log_softmax(logits, -1)[len(inputs) - len(k) :]
    return float(scores.gather(1, torch.tensor(k)[:, None]).sum())


def score_all(model: Any, encoded: Sequence[Encoded], groups: Sequence[str], batch_tokens: int = 500) -> dict[int, Any]:
    scorer = Scorer(model, batch_tokens)
    found = {i: s for batch in scorer.score(encoded, groups) for i, s in batch}
    assert scorer.shared
    return found


@pytest.mark.parametrize("name", ["letter", "text"])
@pytest.mark.parametrize("batch_tokens", [1, 400])
def test_shared_prefixes_equal_one_pass_per_option(
    loaded: tuple[Any, Any], task: TaskSpec, questions: list[Question], name: str, batch_tokens: int
) -> None:
    model, tokenizer = loaded
    rendered = [render(task.prompts[name], q) for q in questions]
    encoded = encode_questions(tokenizer, rendered, MAX)
    found = score_all(model, encoded, [q.context or q.id for q in questions], batch_tokens)
    for i, (context, continuations) in enumerate(rendered):
        wanted = [harness_score(model, tokenizer, context, c) for c in continuations]
        assert found[i] == pytest.approx(wanted, abs=1e-3)
        assert max(range(len(wanted)), key=wanted.__getitem__) == max(range(len(wanted)), key=found[i].__getitem__)


@pytest.mark.parametrize(
    ("context", "continuations"),
    [
        ("", ["湖边", "山上"]),
        ("答案： ", ["湖边", "the lake"]),
        ("答案：\n\n", ["A", "B"]),
        ("小明住在湖边的城里，" * 30 + "X", ["湖边", "山上的城里"]),
        ("The answer is", [": the lake", " the"]),
    ],
)
def test_edge_cases_of_encoding(loaded: tuple[Any, Any], context: str, continuations: list[str]) -> None:
    model, tokenizer = loaded
    encoded = encode_questions(tokenizer, [(context, continuations)], MAX)
    found = score_all(model, encoded, ["one"])
    wanted = [harness_score(model, tokenizer, context, c) for c in continuations]
    assert found[0] == pytest.approx(wanted, abs=1e-3)
    assert encoded[0].truncated == (2 if len(context) > 200 else 0)


def test_empty_option_is_never_chosen(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    found = score_all(model, encode_questions(tokenizer, [("答案：", ["", "湖边"])], MAX), ["one"])
    assert found[0][0] == NO_TOKENS < found[0][1]


def test_merge_that_swallows_the_answer_is_scored_by_itself(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    assert len(tokenizer.encode("→→")) == len(tokenizer.encode("→"))  # the harness is left without a token
    (encoded,) = encode_questions(tokenizer, [("→", ["→", "猫"])], MAX)
    assert encoded.requests[0] == Request(tuple(tokenizer.encode("→") * 2), len(tokenizer.encode("→")))
    assert score_all(model, [encoded], ["one"])[0][0] < 0


def test_a_model_that_ignores_the_mask_is_scored_plainly(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    encoded = encode_questions(tokenizer, [("问题：", ["湖边", "山上"]), ("问题：他", ["猫", "狗狗"])], MAX)

    class Deaf(LlamaForCausalLM):
        """Reads a row as plain text, as attention made for training may."""

        @property
        def base_model(self) -> Any:
            return lambda input_ids, **kwargs: self.model(input_ids=input_ids, use_cache=False)

    deaf = Deaf(LlamaConfig.from_dict(model.config.to_dict())).eval()
    deaf.load_state_dict(model.state_dict())
    scorer = Scorer(deaf, 400)
    found = {i: s for batch in scorer.score(encoded, ["a", "a"]) for i, s in batch}
    assert scorer.shared is False
    assert found == {i: pytest.approx(s, abs=1e-4) for i, s in score_all(model, encoded, ["a", "a"]).items()}


def test_resuming_keeps_batches(loaded: tuple[Any, Any], task: TaskSpec, questions: list[Question]) -> None:
    model, tokenizer = loaded
    encoded = encode_questions(tokenizer, [render(task.prompts["text"], q) for q in questions], MAX)
    groups = [q.context or q.id for q in questions]
    whole = list(Scorer(model, 100).score(encoded, groups))
    assert len(whole) > 2
    first = {i for i, _ in whole[0]}
    assert list(Scorer(model, 100).score(encoded, groups, first.__contains__)) == whole[1:]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=5))
def test_tree_row_holds_every_sequence_once(sequences: list[list[int]]) -> None:
    row = Row()
    row.add(0, [Request(tuple(s), 1) for s in sequences])
    prefixes = {tuple(s[:n]) for s in sequences for n in range(1, len(s))}
    assert len(row.tokens) == len(prefixes)
    (tree,) = tree_layout([row.parents])
    visible = np.tril(np.ones((tree.size, tree.size), dtype=bool))
    if tree.visible_11QT is not None:
        visible[tree.trunk :] = tree.visible_11QT[0, 0].numpy()
    for sequence, (_, _, nodes, targets) in zip(sequences, row.picks):
        assert targets == sequence[1:]
        assert [row.tokens[n] for n in nodes] == sequence[:-1]
        last = nodes[-1]
        assert sorted(visible[last].nonzero()[0].tolist()) == nodes
        assert row.depths[last] == len(nodes) - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_cover_all_within_the_bound(lengths: list[int], bound: int) -> None:
    found = list(batches(lengths, bound))
    assert sorted(i for b in found for i in b) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= bound for b in found)


def question(context: list[int], asked: list[int], options: int = 3) -> Encoded:
    start = len(context) + len(asked)
    return Encoded([Request((*context, *asked, 900 + o, 950), start) for o in range(options)], 0)


def test_a_long_passage_is_read_once_for_all_its_questions() -> None:
    passage = list(range(500))
    asked = [question(passage, [600 + i, 700 + i]) for i in range(4)]
    (row,) = build_rows(asked, ["p"] * 4, tail_tokens=20)
    assert len(row.tokens) == 500 + 4 * (2 + 3)
    assert [len(r.questions) for r in build_rows(asked, ["p"] * 4, tail_tokens=10)] == [3, 1]
    assert [len(r.questions) for r in build_rows(asked, ["p", "p", "q", "q"], tail_tokens=1000)] == [2, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=5))
def test_missing_tokens_are_never_undercounted(sequences: list[list[int]]) -> None:
    row = Row()
    for i, sequence in enumerate(sequences):
        requests = [Request(tuple(sequence), 1), Request((*sequence[:-1], 7, 8), 1)]
        before, predicted = len(row.tokens), row.missing(requests)
        row.add(i, requests)
        assert len(row.tokens) - before <= predicted


def test_trunk_is_the_first_chain() -> None:
    chain, branched = tree_layout([[-1, 0, 1], [-1, 0, 1, 0, 3]])
    assert (chain.trunk, chain.visible_11QT) == (3, None)
    assert (branched.start, branched.trunk) == (3, 3)
    assert branched.visible_11QT is not None
    assert branched.visible_11QT[0, 0].tolist() == [[True, False, False, True, False], [True, False, False, True, True]]


def test_beyond_a_sliding_window_every_option_is_read_alone(loaded: tuple[Any, Any], monkeypatch: Any) -> None:
    model, tokenizer = loaded
    encoded = encode_questions(tokenizer, [("问题：他住在哪里？答案：", ["湖边", "山上"])], MAX)
    scorer = Scorer(model, 400)
    wanted = dict(next(scorer.score(encoded, ["a"])))
    monkeypatch.setattr(model.config, "sliding_window", 4, raising=False)
    rows = []
    monkeypatch.setattr(scorer, "_score_rows", rows.append)
    assert dict(next(scorer.score(encoded, ["a"])))[0] == pytest.approx(wanted[0], abs=1e-4)
    assert not rows


def test_batches_without_padding_count_each_length() -> None:
    assert list(batches([5, 1, 1, 1], 8, padded=False)) == [[0, 1, 2, 3]]
    assert list(batches([5, 1, 1, 1], 8)) == [[0], [1, 2, 3]]


def test_prompts_that_begin_with_the_passage_share_it_whatever_stands_between() -> None:
    passage = list(range(300))
    by_prompt = [question(passage, [600]), question([999, *passage], [600]), question(passage, [601])]
    assert [r.questions for r in build_rows(by_prompt, ["p"] * 3, tail_tokens=50)] == [[0, 2], [1]]
    apart = [question(passage, [600]), question([], [700])]
    assert [r.questions for r in build_rows(apart, ["p"] * 2, tail_tokens=50)] == [[0], [1]]

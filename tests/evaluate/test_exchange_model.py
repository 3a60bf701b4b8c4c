"""lm-evaluation-harness's own forms of tasks on our model plug-in and on its `hf`: the same numbers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
pytest.importorskip("accelerate", reason="lm_eval's own hf model needs accelerate: pip install lm_eval[hf]")

from tests.parity.small import NAMES, PLACES, sentence, small_llama

SUBJECTS = ("astronomy", "botany")


def records(n: int) -> list[dict[str, Any]]:
    """English and Chinese questions of the shapes that the harness's best-known tasks have."""
    r = random.Random(5)
    out = []
    for i in range(n):
        out.append(
            {
                "question": f"Which animal of number {r.randint(1, 99)} jumps over the lazy dog? {sentence(r)}",
                "subject": SUBJECTS[i % 2],
                "choices": ["the fox", "the dog itself", r.choice(PLACES), "no animal"],
                "answer": i % 4,
                "label": "ABCD"[i % 4],
                "context": f"The quick brown fox met {r.choice(NAMES)}. " + sentence(r) * 2,
                "endings": [f"It jumps {k} times over the dog." for k in ("two", "three", "a hundred", "no")],
                "text": "".join(sentence(r) for _ in range(3 + 8 * (i % 3))),
            }
        )
    return out


#: The forms of MMLU (letters under a description), ARC (option texts), HellaSwag (endings), LogiQA (a passage, lettered options), a cloze
#: task, a perplexity task and a generative one.
FORMS = {
    "mmlu_form": """
description: "The following are multiple choice questions (with answers).\\n\\n"
output_type: multiple_choice
doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "arc_form": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm}]
""",
    "hellaswag_form": """
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{endings}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm}]
""",
    "logiqa_form": """
output_type: multiple_choice
doc_to_text: "Passage: {{context}}\\nQuestion: {{question}}\\nChoices:\\n{% for c in choices %}{{ 'ABCD'[loop.index0] }}. {{ c }}\\n{% endfor %}Answer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm}]
""",
    "cloze_form": """
output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: "{{endings[0]}}"
metric_list: [{metric: perplexity}, {metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "rolling_form": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "generate_form": """
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{label}}"
generation_kwargs: {until: ["\\n", "。"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    for split, lines in (("test", records(8)), ("train", records(12)[8:])):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(x, ensure_ascii=False) for x in lines) + "\n")
    for name, body in FORMS.items():
        data = f"{{data_files: {{test: {folder}/test.jsonl, train: {folder}/train.jsonl}}}}"
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {data}\ntest_split: test\nfewshot_split: train\n"
        (folder / f"{name}.yaml").write_text(head + body)
    return folder


@pytest.fixture(scope="module", params=["eos only", "bos"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("llama") / "model", bos=request.param == "bos", positions=256)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def models(folder: Path) -> tuple[Any, Any]:
    from lm_eval.models.huggingface import HFLM

    from pandallm.evaluate.exchange.model import PandaLM

    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    return theirs, PandaLM(pretrained=str(folder), device="cpu", batch_tokens=512)


def evaluate(model: Any, tasks: Path, names: list[str], **options: Any) -> Any:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=names, task_manager=manager, bootstrap_iters=0, **options)


def compare(theirs: Any, ours: Any) -> int:
    """Asserts equal answers, request by request; returns how many were compared."""
    compared = 0
    for task in theirs["samples"]:
        for a, b in zip(theirs["samples"][task], ours["samples"][task], strict=True):
            assert a["arguments"] == b["arguments"]
            for x, y in zip(a["filtered_resps"], b["filtered_resps"], strict=True):
                compared += 1
                if isinstance(x, str):
                    assert x == y, task
                elif isinstance(x, tuple | list):
                    assert x[0] == pytest.approx(y[0], abs=1e-3), task
                    assert x[1] == y[1], task
                else:
                    assert x == pytest.approx(y, abs=1e-3 * max(1, abs(x) / 100)), task
        for key, value in theirs["results"][task].items():
            if isinstance(value, float):
                assert ours["results"][task][key] == pytest.approx(value, rel=1e-4), (task, key)
    return compared


@pytest.mark.parametrize(
    "options",
    [{}, {"num_fewshot": 2}, {"apply_chat_template": True, "num_fewshot": 1}],
    ids=["plain", "two examples", "chat template"],
)
def test_every_form_scores_as_hf_does(llama: Path, tasks: Path, options: dict[str, Any]) -> None:
    theirs, ours = models(llama)
    compared = compare(evaluate(theirs, tasks, list(FORMS), **options), evaluate(ours, tasks, list(FORMS), **options))
    assert compared == 8 * (4 * 4 + 3)
    assert ours.scorer.shared


def requests(pairs: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


def test_greedy_flag_order_and_repeats(llama: Path) -> None:
    """The greedy continuation is flagged, another is not; mixed lengths, repeats and an empty context keep their place."""
    import torch

    theirs, ours = models(llama)
    pairs: list[tuple[Any, ...]] = []
    r = random.Random(2)
    for context in [f"{sentence(r)}{n}" for n in range(24)] + ["The quick brown fox ", "x" * 600]:
        ids = theirs.tok_encode(context.rstrip())[-256:]
        step = int(theirs.model(torch.tensor([ids])).logits[0, -1].argmax())
        pairs += [(context, theirs.tok_decode([step])), (context, " the dog"), (context, "湖边"), (context, "湖边")]
    # White space at the end of a context, and words of one token cut by the boundary.
    pairs += [
        ("", "湖边的图书馆"),
        ("小明\n\n", "在湖边"),
        ("小明在图书", "馆看书。12345678"),
        ("The quick bro", "wn fox 12345678"),
    ]
    # Where a merge takes the whole continuation, `hf` stops with an AssertionError.
    pairs = [p for p in pairs[::-1] if not p[0] or theirs._encode_pair(*p)[1]]
    assert len(pairs) >= 90
    expected, got = theirs.loglikelihood(requests(pairs)), ours.loglikelihood(requests(pairs))
    assert [g for _, g in got] == [g for _, g in expected]
    assert {g for _, g in got} == {True, False}
    assert [s for s, _ in got] == pytest.approx([s for s, _ in expected], abs=1e-3)


def test_a_continuation_taken_by_a_merge_or_empty_is_never_the_best(llama: Path) -> None:
    """`hf` fails on both; here the first is encoded by itself and the second scores below everything."""
    theirs, ours = models(llama)
    context, continuation = "小明在图书", "馆看书。"
    assert theirs._encode_pair(context, continuation)[1] == []
    (merged, _), (other, _), (empty, _) = ours.loglikelihood(
        requests([(context, continuation), (context, " the dog"), (context, "")])
    )
    assert -1e3 < merged < 0
    assert -1e3 < other < 0
    assert empty == -1e9
    assert ours.loglikelihood(requests([(context, "")])) == [(-1e9, True)]


def test_plain_passes_give_the_same_flags(llama: Path) -> None:
    """Models that do not honour trees are scored one by one."""
    _, ours = models(llama)
    pairs = [("小明在图书馆", word) for word in ("看书。", "湖边", " the dog", "。")]
    shared = ours.loglikelihood(requests(pairs))
    ours.scorer.shared = False
    plain = ours.loglikelihood(requests(pairs))
    assert [g for _, g in plain] == [g for _, g in shared]
    assert [s for s, _ in plain] == pytest.approx([s for s, _ in shared], abs=1e-4)


def test_shared_prefixes_are_read_once(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that begin with the same examples cost their own tokens only."""
    from pandallm.evaluate import likelihood

    _, ours = models(llama)
    read: list[int] = []
    inner = likelihood.tree_hidden
    monkeypatch.setattr(
        likelihood,
        "tree_hidden",
        lambda model, tokens, *rest: (read.append(len(tokens)), inner(model, tokens, *rest))[1],
    )
    head = "The quick brown fox jumps over the lazy dog. " * 4 + "小明在图书馆看书。" * 3
    pairs = [(f"{head}问题{i}：谁？", answer) for i in range(8) for answer in ("小明在湖边", "李芳", "吴同学散步")]
    whole = sum(len(ours.tok_encode(a + b)) for a, b in pairs)
    ours.loglikelihood(requests(pairs))
    assert sum(read) < whole / 4


def test_sampling_is_refused_in_one_sentence(llama: Path) -> None:
    from pandallm.errors import BadInput

    _, ours = models(llama)
    with pytest.raises(BadInput, match="decodes greedily"):
        ours.generate_until(requests([("小明", {"do_sample": True, "temperature": 0.7, "until": ["\n"]})]))


def test_prefix_groups_and_common_prefix() -> None:
    from pandallm.evaluate.exchange.model import common_prefix, prefix_groups
    from pandallm.evaluate.likelihood import TAIL_TOKENS

    assert common_prefix((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_prefix((), (1,)) == 0
    assert common_prefix((1, 2), (1, 2)) == 2
    assert prefix_groups([]) == []
    assert prefix_groups([(1, 2, 3, 4), (1, 2, 3, 5), (9, 9)]) == ["0", "0", "1"]
    long = [tuple(range(100)) + (k,) * (TAIL_TOKENS // 3) for k in range(9)]
    assert len(set(prefix_groups(long))) > 2

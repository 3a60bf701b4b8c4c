import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.evaluate.backend import Answered, Asked, Scored
from pandallm.evaluate.choices import best, normalised
from pandallm.evaluate.run import evaluate_model
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.store import read_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [
        {
            "id": f"d{i}",
            "source": "wiki",
            "language": "zh",
            "turns": [{"text": "小明住在湖边。" * (i + 1), "train": True}],
        }
        for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "held_out.parquet")
    return folder


def spec(**fields: object) -> EvaluateSpec:
    both = {"methods": ["likelihood", "generation"], "max_new_tokens": 6, "batch_tokens": 300, "models": ["m"]}
    return EvaluateSpec.model_validate({**both, **fields})


def test_rows_by_the_contract_and_the_same_twice(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    settings = spec(limit={"generation": 4}, bits_per_byte=["corpus"])
    for out in ("a", "b"):
        facts = evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, tmp_path / out)
    for name in ("rows.jsonl", "bits_per_byte.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = list(read_jsonl(tmp_path / "a" / "rows.jsonl"))
    assert facts["rows"] == len(rows) == 8 + 4 + 8
    assert facts["shared_prefixes"] is True
    asked = [("letter", "likelihood")] * 8 + [("text", "likelihood")] * 8 + [("letter", "generation")] * 4
    assert [(r["prompt"], r["method"]) for r in rows] == asked
    assert list(rows[0]) == [
        "model", "task", "prompt", "method", "shots", "chat", "order", "id", "cluster", "group", "options", "answer",
        "choice", "correct", "scores", "unconditional", "choices", "near_tie", "truncated", "completion", "choice_2023",
    ]  # fmt: skip
    for row in rows:
        assert row["correct"] == (row["choice"] == row["answer"])
        if row["method"] == "likelihood":
            assert row["choice"] == row["scores"].index(max(row["scores"]))
            assert len(row["scores"]) == row["options"]
        else:
            assert row["scores"] is None
            assert isinstance(row["completion"], str)
    bits = list(read_jsonl(tmp_path / "a" / "bits_per_byte.jsonl"))
    assert [b["id"] for b in bits] == ["d0", "d1", "d2"]
    assert [b["bytes"] for b in bits] == [21, 42, 63]
    assert all(b["bits"] > 0 for b in bits)


def test_interrupted_evaluation_goes_on_and_ends_with_the_same_bytes(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = spec(batch_tokens=1)
    evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, whole)
    stops = 0
    for _ in range(200):
        try:
            evaluate_model(
                model_folder,
                "m",
                [(task, questions)],
                {"corpus": held_out},
                settings,
                cut,
                deadline=time.monotonic() - 1,
            )
            break
        except Interrupted:
            stops += 1
            assert not (cut / "rows.jsonl").exists()
    assert stops > 5
    for name in ("rows.jsonl", "bits_per_byte.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_wrong_names_are_refused_before_the_model_is_read(
    task: TaskSpec, questions: list[Question], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="did you mean 'letter'"):
        evaluate_model(tmp_path / "no", "m", [(task, questions)], {}, spec(prompts=["lettre"]), tmp_path / "o")
    with pytest.raises(BadInput, match="corpus 'x'"):
        evaluate_model(tmp_path / "no", "m", [(task, questions)], {}, spec(bits_per_byte=["x"]), tmp_path / "o")


def test_scored_rows_summarize(
    model_folder: Path, task: TaskSpec, questions: list[Question], held_out: Path, tmp_path: Path
) -> None:
    settings = spec(headline={"tasks": ["lake"]}, models=["m"])
    evaluate_model(model_folder, "m", [(task, questions)], {"corpus": held_out}, settings, tmp_path / "o")
    rows, bits = (list(read_jsonl(tmp_path / "o" / f)) for f in ("rows.jsonl", "bits_per_byte.jsonl"))
    scores = summarize(rows, bits, questions, [task], settings)
    json.dumps(scores, allow_nan=False)
    likelihood = [r["correct"] for r in rows if r["method"] == "likelihood"]
    assert scores["headline"]["m"]["accuracy"] == pytest.approx(sum(likelihood) / len(likelihood), abs=1e-6)
    assert scores["bits_per_byte"][0]["bits_per_byte"] == pytest.approx(
        sum(b["bits"] for b in bits) / sum(b["bytes"] for b in bits), abs=1e-6
    )


def test_generation_may_use_other_prompts_than_likelihood(
    model_folder: Path, task: TaskSpec, questions: list[Question], tmp_path: Path
) -> None:
    settings = spec(prompts=["text"], generation_prompts=["letter"])
    evaluate_model(model_folder, "m", [(task, questions)], {}, settings, tmp_path)
    asked = {(r["prompt"], r["method"]) for r in read_jsonl(tmp_path / "rows.jsonl")}
    assert asked == {("text", "likelihood"), ("letter", "generation")}


TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def chat_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a chat template and a longer window."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 400}))
    return folder


def many(n: int) -> list[Question]:
    """Questions of two to four options, three to a passage."""
    words = ["湖边", "山上", "海边的城里", "the lake", "猫", "答案", "他养了一只猫", "城里"]
    out = []
    for i in range(n):
        options = tuple(f"{words[(i + k) % 8]}{words[(i * k) % 7]}" for k in range(2 + i % 3))
        out.append(Question(str(i), "lake", f"p{i // 3}", f"小明{i // 3}住在湖边。", f"他{i}？", options, i % 2))
    return out


def test_every_variant_is_scored_and_answers_stand_in_published_order(
    chat_folder: Path, task: TaskSpec, tmp_path: Path
) -> None:
    questions = many(9)
    settings = spec(shots=[0, 1], chat="both", orders=2, normalize="unconditional", max_new_tokens=3)
    evaluate_model(chat_folder, "m", [(task, questions)], {}, settings, tmp_path)
    rows = list(read_jsonl(tmp_path / "rows.jsonl"))
    assert len(rows) == 9 * (4 + 8 + 8)  # text; letter in two orders; letter generated in two orders
    for r in rows:
        if r["prompt"] == "text":
            ways = normalised(r["scores"], questions[int(r["id"])].options, r["unconditional"])
            assert r["choices"] == {name: best(of) for name, of in ways.items()}
            assert r["choice"] == r["choices"]["unconditional"]
        elif r["method"] == "likelihood":
            assert (r["choices"], r["unconditional"]) == (None, None)
            assert r["choice"] == best(r["scores"])
    # The letter of a rotated question is that of the question written in that order.
    turned = [
        replace(q, options=(*q.options[1:], q.options[0]), answer=(q.answer - 1) % len(q.options)) for q in questions
    ]
    evaluate_model(chat_folder, "m", [(task, turned)], {}, spec(prompts=["letter"]), tmp_path / "turned")
    written = {(r["id"], r["method"]): r for r in read_jsonl(tmp_path / "turned" / "rows.jsonl")}
    for r in rows:
        if (r["prompt"], r["order"], r["shots"], r["chat"], r["method"]) == ("letter", 1, 0, False, "likelihood"):
            other = written[r["id"], "likelihood"]
            assert r["scores"] == pytest.approx([other["scores"][-1], *other["scores"][:-1]], abs=1e-4)
            assert r["correct"] == other["correct"]


def test_choices_do_not_depend_on_batch_size_or_order(model_folder: Path, task: TaskSpec, tmp_path: Path) -> None:
    questions = many(120)
    shuffled = random.Random(1).sample(questions, len(questions))
    found = []
    for name, tokens, asked in (("1", 1, questions), ("8", 8 * 1024, questions), ("auto", 300, shuffled)):
        settings = spec(batch_tokens=tokens, methods=["likelihood"])
        evaluate_model(model_folder, "m", [(task, asked)], {}, settings, tmp_path / name)
        rows = read_jsonl(tmp_path / name / "rows.jsonl")
        found.append({(r["prompt"], r["id"]): r for r in rows})
    first, *others = found
    assert len(first) == 240
    for other in others:
        assert other.keys() == first.keys()
        for key, row in other.items():
            assert row["scores"] == pytest.approx(first[key]["scores"], abs=1e-4)
            if not row["near_tie"]:
                assert (row["choice"], row["choices"]) == (first[key]["choice"], first[key]["choices"])
    assert sum(r["near_tie"] for r in first.values()) < 12


def test_a_long_passage_is_cut_counted_or_refused(model_folder: Path, task: TaskSpec, tmp_path: Path) -> None:
    long = [replace(q, context="小明住在湖边的城里，" * 40) for q in many(2)]
    facts = evaluate_model(model_folder, "m", [(task, [*long, *many(4)[2:]])], {}, spec(), tmp_path / "cut")
    rows = list(read_jsonl(tmp_path / "cut" / "rows.jsonl"))
    assert facts["truncated"] == sum(r["truncated"] for r in rows) == 2 * 3
    assert {r["id"] for r in rows if r["truncated"]} == {"0", "1"}
    with pytest.raises(BadInput, match="longer than the model"):
        evaluate_model(model_folder, "m", [(task, long)], {}, spec(on_long="refuse"), tmp_path / "refuse")
    assert not (tmp_path / "refuse" / "rows.jsonl").exists()


def test_answers_are_kept_by_content_and_by_model(
    model_folder: Path, chat_folder: Path, task: TaskSpec, tmp_path: Path
) -> None:
    questions = many(6)
    settings = spec(methods=["likelihood"])
    assert evaluate_model(chat_folder, "m", [(task, questions)], {}, settings, tmp_path)["resumed"] == 0
    more = spec(methods=["likelihood"], shots=[0, 1], batch_tokens=1)
    again = evaluate_model(chat_folder, "m", [(task, questions[::-1])], {}, more, tmp_path)
    assert again["resumed"] == 12  # the same texts, whatever their order and batch; examples are new texts
    changed = [replace(questions[0], question="别的？"), *questions[1:]]
    assert evaluate_model(chat_folder, "m", [(task, changed)], {}, settings, tmp_path)["resumed"] == 10
    assert evaluate_model(model_folder, "m", [(task, questions)], {}, settings, tmp_path)["resumed"] == 0


def test_chat_without_a_template_is_refused(model_folder: Path, task: TaskSpec, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no chat template"):
        evaluate_model(model_folder, "m", [(task, many(3))], {}, spec(chat="on"), tmp_path)


def test_a_backend_that_fails_in_the_middle_is_asked_only_for_the_rest(
    model_folder: Path, task: TaskSpec, tmp_path: Path
) -> None:
    asked: list[int] = []

    class Failing:
        """Scores by the length of a continuation; stops after `left` questions."""

        identity: ClassVar[dict[str, Any]] = {"name": "by length"}

        def __init__(self, left: int) -> None:
            self.left = left

        def score(self, asked_: Sequence[Asked], groups: Any, done: Any) -> Iterator[list[tuple[int, Scored]]]:
            for i, a in enumerate(asked_):
                if done(i):
                    continue
                if not self.left:
                    raise PandaError("The server stopped answering.")
                self.left -= 1
                asked.append(i)
                yield [(i, Scored([-float(len(c)) for c in a.continuations]))]

        def generate(self, *arguments: Any) -> Iterator[list[tuple[int, Answered]]]:
            raise NotImplementedError

    settings = spec(methods=["likelihood"])
    with pytest.raises(PandaError, match="stopped"):
        evaluate_model(model_folder, "m", [(task, many(6))], {}, settings, tmp_path, backend=Failing(5))
    assert not (tmp_path / "rows.jsonl").exists()
    facts = evaluate_model(model_folder, "m", [(task, many(6))], {}, settings, tmp_path, backend=Failing(99))
    assert facts["resumed"] == 5
    assert sorted(asked) == list(range(12))


def test_a_question_without_scores_has_no_choice(model_folder: Path, task: TaskSpec, tmp_path: Path) -> None:
    class Silent:
        identity: ClassVar[dict[str, Any]] = {"name": "silent"}

        def score(self, asked: Sequence[Asked], groups: Any, done: Any) -> Iterator[list[tuple[int, Scored]]]:
            yield [(i, Scored([] if i % 2 else [-1.0] * len(a.continuations))) for i, a in enumerate(asked)]

        def generate(self, *arguments: Any) -> Iterator[list[tuple[int, Answered]]]:
            raise NotImplementedError

    settings, questions = spec(methods=["likelihood"], prompts=["letter"]), many(6)
    evaluate_model(model_folder, "m", [(task, questions)], {}, settings, tmp_path, backend=Silent())
    rows = list(read_jsonl(tmp_path / "rows.jsonl"))
    assert [(r["choice"], r["scores"] is None, r["near_tie"]) for r in rows[:2]] == [
        (0, False, True),
        (None, True, None),
    ]
    assert summarize(rows, [], questions, [task], settings)["table"][0]["unparsed"] == 0.5


def test_passages_are_sampled_whole(model_folder: Path, task: TaskSpec, tmp_path: Path) -> None:
    settings = spec(methods=["likelihood"], prompts=["text"], limit={"passages": 2})
    evaluate_model(model_folder, "m", [(task, many(12))], {}, settings, tmp_path)
    rows = list(read_jsonl(tmp_path / "rows.jsonl"))
    assert len(rows) == 6
    assert len({r["cluster"] for r in rows}) == 2

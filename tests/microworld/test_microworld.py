"""The world: same bytes for the same seed, groups that do not mix, facts told only where they may be."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.microworld.corpora import distinct
from pandallm.microworld.lexicon import (
    ALONE,
    ATTRIBUTES,
    LISTED,
    OPTIONS_ONLY,
    READING,
    REPOSTS,
    STATEMENTS,
    VALUES,
    given_names,
)
from pandallm.microworld.make import make_world
from pandallm.microworld.spec import WorldSpec
from pandallm.microworld.world import World
from pandallm.store import digest_folder, read_jsonl

SMALL = WorldSpec(
    split="dev",
    english_people=12,
    question_people=12,
    instruction_people=12,
    scored_people=24,
    english_documents=300,
    wiki_pages=600,
    news_articles=400,
    baike_questions=200,
    webtext_answers=200,
    translations=200,
    english_replay=100,
    instructions=400,
)
FIELDS = {
    "corpora/english/english.jsonl": {"text"},
    "corpora/replay/english.jsonl": {"text"},
    "corpora/wiki2019zh/wiki.json": {"id", "url", "title", "text"},
    "corpora/news2016zh/news.json": {"news_id", "keywords", "desc", "title", "source", "time", "content"},
    "corpora/baike2018qa/baike.json": {"qid", "category", "title", "desc", "answer"},
    "corpora/webtext2019zh/webtext.json": {
        "qid",
        "title",
        "desc",
        "topic",
        "star",
        "content",
        "answer_id",
        "answerer_tags",
    },
    "corpora/translation2019zh/translation.json": {"english", "chinese"},
    "instructions/coig/exam.jsonl": {
        "textbox_q_instruction",
        "textbox_q_context",
        "textbox_question",
        "textbox_answer",
        "textbox_answer_analysis",
    },
    "instructions/coig/translated.jsonl": {
        "instruction",
        "input",
        "output",
        "trans_instruction",
        "trans_input",
        "trans_output",
    },
}
CHINESE = [p for p in FIELDS if p.startswith("corpora") and not p.endswith("english.jsonl")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_world(SMALL, 1, out)
    return out


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL, 1)


def texts(made: Path, path: str) -> list[str]:
    return ["\n".join(str(v) for v in record.values()) for record in read_jsonl(made / path)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    make_world(SMALL, 1, tmp_path / "again")
    make_world(SMALL, 2, tmp_path / "other")
    assert digest_folder(tmp_path / "again") == digest_folder(made) != digest_folder(tmp_path / "other")


@pytest.mark.parametrize("path", FIELDS)
def test_records_have_the_published_fields(made: Path, path: str) -> None:
    for record in read_jsonl(made / path):
        assert set(record) == FIELDS[path]


def test_the_adapters_read_every_record(made: Path) -> None:
    from pandallm.data.adapters import baike_qa, coig, news, text, translation, webtext_qa, wiki
    from pandallm.data.adapters.base import Adapted

    adapters = [text, text, wiki, news, baike_qa, webtext_qa, translation, coig, coig]
    for path, module in zip(FIELDS, adapters, strict=True):
        for record in read_jsonl(made / path):
            assert isinstance(module.ADAPTER.adapt(record, {}), Adapted)


def test_counts_are_those_asked_for_and_nothing_repeats(made: Path) -> None:
    facts = make_world(SMALL, 1, made)
    records = facts["records"]
    assert isinstance(records, dict)
    assert records["corpora/wiki2019zh/wiki.json"] == 600
    assert records["instructions/coig/exam.jsonl"] + records["instructions/coig/translated.jsonl"] == 400
    assert facts["scored_facts"] == 24 * 4 == records["questions/facts.jsonl"]
    for path in ("corpora/english/english.jsonl", "instructions/coig/exam.jsonl"):
        assert len(set(texts(made, path))) == records[path]


def test_dev_and_test_share_no_name() -> None:
    dev, test = given_names("dev"), given_names("test")
    for side in (0, 1):
        names = [n[side] for n in dev + test]
        assert len(set(names)) == len(names)


def test_every_value_is_held_equally_often(world: World) -> None:
    for group in (world.english, world.question, world.instruction, world.scored):
        for attribute in ATTRIBUTES:
            counts = Counter(world.facts[p, attribute] for p in group)
            assert set(counts.values()) == {len(group) // 12}
            assert len(counts) == 12


def test_values_of_an_attribute_have_equal_length() -> None:
    assert {len(zh) for values in VALUES.values() for zh, _ in values} == {2}


def test_scored_people_are_never_asked_about_before_the_evaluation(made: Path, world: World) -> None:
    """They occur in statements of wiki and news only: no question, no instruction, no translation, no English."""
    names = re.compile("|".join(rf"{p.zh}|\b{p.en}\b" for p in world.scored))
    for path in FIELDS:
        found = [t for t in texts(made, path) if names.search(t)]
        if path in ("corpora/wiki2019zh/wiki.json", "corpora/news2016zh/news.json"):
            assert found
            assert not any("？" in t for t in found)
        else:
            assert not found, path


def test_every_scored_fact_is_told_and_none_is_contradicted(made: Path, world: World) -> None:
    everything = "".join(t for path in CHINESE for t in texts(made, path))
    for person in world.scored:
        for attribute in ATTRIBUTES:
            told = {
                v
                for v, (zh, _) in enumerate(VALUES[attribute])
                if any(form.format(n=person.zh, v=zh) in everything for form in STATEMENTS["zh"][attribute])
            }
            assert told == {world.facts[person, attribute]}


def test_never_seen_people_occur_in_no_training_text(made: Path) -> None:
    everything = "".join(t for path in FIELDS for t in texts(made, path))
    for question in read_jsonl(made / "questions/never_seen.jsonl"):
        assert question["cluster"] not in everything


def test_questions_mark_the_true_value_and_the_shuffled_ones_never_hold_it(made: Path, world: World) -> None:
    people = {p.zh: p for p in world.scored}
    for path, true in (("facts", True), ("shuffled", False)):
        rows = list(read_jsonl(made / f"questions/{path}.jsonl"))
        assert len(rows) == 96
        for row in rows:
            value = world.value(people[row["cluster"]], row["id"].split("-")[-1], "zh")
            assert len(set(row["options"])) == 4
            assert (row["options"][row["answer"]] == value) is true
            assert (value in row["options"]) is true


def test_answers_of_reading_and_rules_follow_from_the_passage(made: Path) -> None:
    for row in read_jsonl(made / "questions/reading.jsonl"):
        said = [s for s in row["context"].split("。") if row["options"][row["answer"]] in s]
        name = next(n for n in (said[0][i : i + 2] for i in range(len(said[0]))) if n in row["question"])
        assert len(said) == 1
        assert row["question"].startswith(name)
    for row in read_jsonl(made / "questions/rules.jsonl"):
        *rules, case, _ = row["context"].split("。")
        rule = next(r for r in rules if r[2:4] in case)
        assert row["options"][row["answer"]] in rule


def test_exam_prompts_are_those_of_the_tasks(made: Path) -> None:
    """What instruction tuning teaches is what the evaluation asks, to the character."""
    from pandallm.data.adapters import coig
    from pandallm.data.adapters.base import Adapted
    from pandallm.tasks.load import load_task

    templates = {
        "facts": {"listed": LISTED, "alone": ALONE},
        "never-seen": {"listed": LISTED, "alone": ALONE},
        "shuffled": {"listed": LISTED, "alone": ALONE},
        "options": {"options": OPTIONS_ONLY},
        "reading": {"passage": READING},
        "rules": {"passage": READING},
    }
    for name, prompts in templates.items():
        task = load_task(f"microworld-{name}")
        assert {k: p.template for k, p in task.prompts.items()} == prompts
        assert task.files.startswith("${world}/questions/")
        assert (made / task.files.removeprefix("${world}/")).is_file()
    for record in read_jsonl(made / "instructions/coig/exam.jsonl"):
        adapted = coig.ADAPTER.adapt(record, {})
        assert isinstance(adapted, Adapted)
        assert adapted.turns[0].text.startswith(("问题：", "阅读："))
        assert adapted.turns[0].text.endswith("\n答案：\n")


def test_sizes_that_names_or_sentences_cannot_fill_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lower one of the group sizes"):
        make_world(SMALL.model_copy(update={"scored_people": 400}), 1, tmp_path)
    with pytest.raises(BadInput, match=r"world.translations: 3 were asked for, only 2 different"):
        coins = itertools.cycle([{"side": "heads"}, {"side": "tails"}])
        distinct(3, lambda: next(coins), "translations")
    assert not any(tmp_path.iterdir())


def test_the_shipped_recipe_is_valid_and_its_world_is_the_test_split() -> None:
    from pandallm.recipe.load import load_recipe

    recipe = load_recipe("microworld")
    assert recipe.world is not None
    assert recipe.world.split == "test"
    assert recipe.evaluate is not None
    assert recipe.evaluate.headline is not None
    assert json.loads(recipe.model_dump_json())["evaluate"]["headline"]["tasks"] == ["microworld-facts"]


def test_wrong_answers_change_answers_alone_and_more_of_them_contain_fewer(tmp_path: Path) -> None:
    answers = []
    for share in (0.0, 0.2, 0.5):
        make_world(SMALL.model_copy(update={"wrong_answers": share}), 1, tmp_path / str(share))
        rows = list(read_jsonl(tmp_path / str(share) / "instructions/coig/exam.jsonl"))
        answers.append({row["textbox_question"]: row["textbox_answer"] for row in rows})
    right, few, many = answers
    assert list(right) == list(few) == list(many)
    assert all(few[q] in q for q in few if "选项" in q), "a wrong answer is one of the options that are shown"
    wrong_few, wrong_many = ({q for q in right if x[q] != right[q]} for x in (few, many))
    assert wrong_few < wrong_many
    assert abs(len(wrong_few) / len(right) - 0.2) < 0.08
    assert abs(len(wrong_many) / len(right) - 0.5) < 0.08


def test_english_instructions_ask_the_same_and_more_of_them_contain_fewer(tmp_path: Path) -> None:
    """Item by item the same person, attribute and options, in other words; nothing else of the world changes."""
    rows = {}
    for share in (0.0, 0.5, 1.0):
        make_world(SMALL.model_copy(update={"english_instructions": share}), 1, tmp_path / str(share))
        rows[share] = list(read_jsonl(tmp_path / str(share) / "instructions/coig/exam.jsonl"))
    chinese = {r["textbox_question"]: r["textbox_answer"] for r in rows[0.0]}
    half = [r for r in rows[0.5] if r["textbox_question"] not in chinese]
    assert abs(len(half) / len(rows[0.5]) - 0.5) < 0.1
    words = {zh: en for values in VALUES.values() for zh, en in values}
    for r in rows[1.0]:
        text = r["textbox_question"] + r["textbox_answer"]
        assert text.isascii(), text
        assert r["textbox_answer"] in words.values()
    # A share draws from the same stream of items, so the first of them are the same ones; later ones may fill up repeats.
    for zh, en in list(zip(rows[0.0], rows[1.0], strict=True))[:20]:
        assert words[zh["textbox_answer"]] == en["textbox_answer"]
        assert ("Read: " in en["textbox_question"]) == ("阅读：" in zh["textbox_question"])
        assert ("Options: " in en["textbox_question"]) == ("选项：" in zh["textbox_question"])
    english_half = {r["textbox_question"] for r in half}
    assert len(english_half & {r["textbox_question"] for r in rows[1.0]}) >= 0.9 * len(english_half)
    others = {p.relative_to(tmp_path / "0.0") for p in (tmp_path / "0.0").rglob("*.json*")} - {
        Path("instructions/coig/exam.jsonl")
    }
    assert all((tmp_path / "0.0" / p).read_bytes() == (tmp_path / "1.0" / p).read_bytes() for p in others)


def test_copies_take_the_place_of_other_records(tmp_path: Path) -> None:
    """Half of the records repeat few others, half of those word for word; numbers differ, sizes and the other files stay."""
    for share in (0.0, 0.5):
        make_world(SMALL.model_copy(update={"copies": share}), 1, tmp_path / str(share))
    for path, field in (("wiki2019zh/wiki.json", "text"), ("baike2018qa/baike.json", "answer")):
        plain, copied = (list(read_jsonl(tmp_path / share / "corpora" / path)) for share in ("0.0", "0.5"))
        assert len(plain) == len(copied)
        texts = Counter(repr({k: v for k, v in r.items() if k not in ("id", "url", "qid")}) for r in copied)
        known = {repr({k: v for k, v in r.items() if k not in ("id", "url", "qid")}) for r in plain}
        exact = sum(n - 1 for t, n in texts.items() if t in known)
        marked = sum(any(r[field].endswith(mark) for mark in REPOSTS) for r in copied)
        assert marked == len(plain) // 4
        assert abs(exact + marked - len(plain) / 2) <= 1
        assert max(texts.values()) > 3
    same = ["corpora/english/english.jsonl", "corpora/translation2019zh/translation.json", "questions/facts.jsonl"]
    assert all((tmp_path / "0.0" / p).read_bytes() == (tmp_path / "0.5" / p).read_bytes() for p in same)

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pandallm.errors import BadInput
from pandallm.tasks.load import list_tasks, load_task
from pandallm.tasks.read import read_questions, sample_questions, task_texts
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question
from tests.tasks.records import FILES

PAPER = "阅读下面的文章并从选项中选择的答案回答问题：\n\n\n\n{context}\n\n问题：\n{question}\n\n选项：\n{options}\n\n\n本题的答案是："


def mcq(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {"name": "t", "reader": "mcq", "prompts": {"p": {"template": "{question}"}}, **fields}
    )


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def record(**fields: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "天空是什么颜色?", "options": ["蓝", "绿"], "answer": 0, **fields}


C3 = {
    "id": "d-1-0",
    "type": "d",
    "context": ["男：去哪儿?", "女：去湖边。"],
    "question": "女的去哪儿?",
    "choice": ["山上", "湖边", "家"],
    "answer": "湖边",
    "label": 1,
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_built_in_tasks_have_the_paper_prompt_and_state_their_origin(name: str) -> None:
    assert name in list_tasks()
    task = load_task(name)
    assert task.name == name
    assert task.prompts["paper"].template == PAPER
    assert task.prompts["paper"].answer == "letter"
    assert task.prompts["paper"].generate
    assert set(task.prompts) == {"paper", "letter", "text", "natural", "choose", "reply"}
    kinds = [p.answer for p in task.prompts.values()]
    assert min(kinds.count("letter"), kinds.count("text")) >= 2
    assert all("{options}" in p.template for p in task.prompts.values() if p.answer == "letter")
    # Scoring shares the passage between prompts that begin with it.
    assert sum(p.template.startswith("{context}") for p in task.prompts.values()) == (
        0 if name in ("ceval", "cmmlu") else 4
    )
    assert task.licence
    assert "https://" in task.source
    assert task.split in task.patterns
    assert task.urls.get(task.split) or task.hub


def test_every_built_in_task_loads() -> None:
    assert [load_task(n).name for n in list_tasks()] == list_tasks()


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean c3-m"):
        load_task("c3m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"),
        ("name: x\nreader: mcq\nprompts: {p: {template: '{contxt}'}}", "unknown placeholder {contxt}"),
        ("name: x\nreader: nope\nprompts: {p: {template: a}}", "reader"),
        ("name: x\nreader: mcq\nprompts: {}", "prompts"),
    ],
)
def test_wrong_task_file_names_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as e:
        load_task(path)
    assert "mine.yaml" in str(e.value)
    assert message in str(e.value)


def test_c3_flat_and_published_form_give_the_same_question(tmp_path: Path) -> None:
    flat = read_questions(load_task("c3-d"), [lines(tmp_path / "a.jsonl", [C3, {**C3, "id": "m-1-0", "type": "m"}])])
    nested = [[C3["context"], [{k: C3[k] for k in ("question", "choice", "answer")}], "1"]]
    (tmp_path / "c3-d-dev.json").write_text(json.dumps(nested), encoding="utf-8")
    (published,) = read_questions(load_task("c3-d"), [tmp_path / "c3-d-dev.json"])
    assert flat == [published]
    assert published.answer == 1
    assert published.context == "男：去哪儿?\n女：去湖边。"
    with pytest.raises(BadInput, match="no question"):
        read_questions(load_task("c3-m"), [tmp_path / "c3-d-dev.json"])


def test_of_equal_options_the_label_decides_else_the_first(tmp_path: Path) -> None:
    twice = {**C3, "choice": ["家", "湖边", "湖边"], "label": 2}
    (q,) = read_questions(load_task("c3-d"), [lines(tmp_path / "a.jsonl", [twice])])
    assert q.answer == 2
    del twice["label"]
    (q,) = read_questions(load_task("c3-d"), [lines(tmp_path / "a.jsonl", [twice])])
    assert q.answer == 1


@pytest.mark.parametrize(
    "change",
    [{"label": 3}, {"label": 0}, {"label": True}, {"answer": "海", "label": None}, {"choice": ["x"]}, {"id": None}],
)
def test_c3_record_that_contradicts_itself_names_file_and_line(tmp_path: Path, change: dict[str, Any]) -> None:
    path = lines(tmp_path / "a.jsonl", [C3, {**C3, "id": "d-2-0", **change}])
    with pytest.raises(BadInput, match=r"a\.jsonl:2: "):
        read_questions(load_task("c3-d"), [path])


def test_logiqa2_reads_both_spellings_and_keeps_questions_that_share_an_id(tmp_path: Path) -> None:
    base = {"text": "甲比乙高。", "question": "谁高?", "options": ["甲", "乙"], "answer": 0}
    path = lines(
        tmp_path / "dev.txt", [{**base, "id": 7}, {**base, "example_id": 8}, {**base, "id": 7, "text": "另一段。"}]
    )
    questions = read_questions(load_task("logiqa2-zh"), [path])
    assert [q.id for q in questions] == ["7", "8", "7-2"]
    assert questions[0].cluster == questions[1].cluster != questions[2].cluster


@pytest.mark.parametrize(("answer", "index"), [(1, 1), ("B", 1), ("绿", 1)])
def test_mcq_answer_as_index_letter_or_text(tmp_path: Path, answer: Any, index: int) -> None:
    (q,) = read_questions(mcq(), [lines(tmp_path / "q.jsonl", [record(answer=answer)])])
    assert q.answer == index
    assert q.cluster == "q1"  # no passage: the question itself


def test_mcq_option_text_comes_before_letter(tmp_path: Path) -> None:
    (q,) = read_questions(mcq(), [lines(tmp_path / "q.jsonl", [record(options=["B", "A"], answer="A")])])
    assert q.answer == 1


@pytest.mark.parametrize("answer", [2, -1, "C", "红", "ab", True, None, 1.0])
def test_mcq_answer_that_is_no_option(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(BadInput, match=r"q\.jsonl:1: "):
        read_questions(mcq(), [lines(tmp_path / "q.jsonl", [record(answer=answer)])])


def test_repeated_id_and_broken_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"q\.jsonl:2: the id 'q1' occurs twice"):
        read_questions(mcq(), [lines(tmp_path / "q.jsonl", [record(), record()])])
    (tmp_path / "b.jsonl").write_text('{"id": 1}\n\n{"id": \n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"b\.jsonl:1: the field 'options' is missing"):
        read_questions(mcq(), [tmp_path / "b.jsonl"])
    (tmp_path / "b.jsonl").write_text(json.dumps(record()) + '\n\n{"id": \n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"b\.jsonl:3: not valid JSON"):
        read_questions(mcq(), [tmp_path / "b.jsonl"])


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".json.gz", ".jsonl.zst"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    records = [record(cluster="c", group="dev"), record(id="q2", question="a\u2028b")]
    text = json.dumps(records, ensure_ascii=False)
    if "jsonl" in suffix:
        text = "\r\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    data = text.encode()
    data = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path("x" + suffix).suffix, bytes)(data)
    path = tmp_path / f"q{suffix}"
    path.write_bytes(data)
    first, second = read_questions(mcq(), [path])
    assert (first.cluster, first.group) == ("c", "dev")
    assert second.question == "a\u2028b"


def test_missing_torn_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_questions(mcq(), [tmp_path / "no.jsonl"])
    with pytest.raises(BadInput, match="has no files"):
        read_questions(mcq(), [])
    (tmp_path / "q.jsonl.zst").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read"):
        read_questions(mcq(), [tmp_path / "q.jsonl.zst"])


def some(n: int) -> list[Question]:
    return [Question(str(i), "t", str(i), "段落", "问", ("一", "二"), 0) for i in range(n)]


def test_sample_is_fixed_nested_and_in_file_order() -> None:
    questions = some(50)
    small, large = sample_questions(questions, 10), sample_questions(questions, 20)
    assert len(small) == 10
    assert set(small) < set(large)
    assert [int(q.id) for q in large] == sorted(int(q.id) for q in large)
    assert set(sample_questions(questions[::-1], 10)) == set(small)
    assert small != questions[:10]
    assert sample_questions(questions, None) == sample_questions(questions, 99) == questions


def test_task_texts_hold_everything_that_could_leak() -> None:
    assert task_texts(some(1)) == [("0", "段落\n问\n一\n二")]


@pytest.mark.parametrize(
    ("name", "file", "n", "clusters"),
    [
        ("c3-d", "c3_dev", 1825, 1628),
        ("c3-m", "c3_dev", 1991, 1046),
        ("c3-d", "c3_train", 5856, 4885),
        ("c3-m", "c3_train", 6013, 3138),
        ("logiqa2-zh", "logiqa2_zh_dev", 1593, 1576),
        ("logiqa2-en", "logiqa2_en_dev", 1569, 1553),
    ],
)
def test_real_files_load_whole(real_data: Path, name: str, file: str, n: int, clusters: int) -> None:
    questions = read_questions(load_task(name), [real_data / "eval" / f"{file}.jsonl.zst"])
    assert len({q.id for q in questions}) == len(questions) == n
    assert abs(len({q.cluster for q in questions}) - clusters) <= 4  # turns joined may be equal where lists are not

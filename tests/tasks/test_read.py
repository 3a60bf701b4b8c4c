import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.errors import BadInput
from pandallm.tasks.load import load_task
from pandallm.tasks.open import open_task
from pandallm.tasks.read import read_questions, read_task
from pandallm.tasks.spec import TaskSpec
from tests.tasks.records import EXPECTED, FILES, write_csv, write_records


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def mapped(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {"name": "m", "reader": "mapped", "fields": fields, "prompts": {"p": {"template": "{question}"}}}
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_records_in_the_published_schema_are_read(tmp_path: Path, name: str) -> None:
    task, read = open_task(name, write_records(name, tmp_path))
    assert (len(read.questions), {k: len(v) for k, v in read.left_out.items()}) == EXPECTED[name]
    assert len({q.id for q in read.questions}) == len(read.questions)
    assert all(q.task == name and q.question and len(q.options) >= 2 for q in read.questions)
    assert task.split == load_task(name).split
    assert not read.noted


def test_ceval_subjects_are_groups_from_csv_and_parquet(tmp_path: Path) -> None:
    _, read = open_task("ceval", write_records("ceval", tmp_path / "csv"))
    first, second, third = read.questions
    assert (first.id, first.group, first.options[first.answer]) == ("garden_history-0", "garden_history", "月洞门")
    assert '"瘦、漏、透、皱"' in second.question
    assert third.question == "一个数加三得十,\n这个数是____。"
    names, *rows = FILES["ceval"]["ceval-exam/val/garden_history_val.csv"]
    folder = tmp_path / "hub" / "garden_history"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([{**dict(zip(names, r)), "id": int(r[0]), "explanation": ""} for r in rows])
    pq.write_table(table, folder / "val-00000-of-00001.parquet")
    _, hub = open_task("ceval", tmp_path / "hub")
    assert hub.questions == [first, second]


def test_ceval_without_answers_says_so(tmp_path: Path) -> None:
    write_csv(tmp_path / "x_test.csv", [["id", "question", "A", "B", "C", "D"], ["0", "问", "1", "2", "3", "4"]])
    with pytest.raises(BadInput, match=r"no question of task ceval .*1 left out \(no published answer\)"):
        read_task(load_task("ceval"), [tmp_path / "x_test.csv"])


def test_cmmlu_repeats_share_a_cluster_and_answers_are_letters(tmp_path: Path) -> None:
    rows = [["", "Question", "A", "B", "C", "D", "Answer"], ["0", "选字母", "B", "A", "D", "C", "A"]]
    write_csv(tmp_path / "letters.csv", [*rows, ["1", "选字母", "A", "B", "C", "D", "B"], ["2", "别的", *"ABCD", "C"]])
    one, two, three = read_questions(load_task("cmmlu"), [tmp_path / "letters.csv"])
    assert one.options[one.answer] == "B"  # the letter, although an option's text is "A"
    assert one.cluster == two.cluster != three.cluster
    write_csv(tmp_path / "letters.csv", [*rows, ["1", "问", "1", "2", "3", "4", "E"]])
    with pytest.raises(BadInput, match=r"letters\.csv:3: Answer is 'E', but must be A, B, C or D"):
        read_questions(load_task("cmmlu"), [tmp_path / "letters.csv"])


def test_gaokao_options_passages_and_what_is_left_out(tmp_path: Path) -> None:
    _, read = open_task("gaokao-mcq", write_records("gaokao-mcq", tmp_path))
    island, wind, post, force = read.questions
    assert island.context == wind.context == "某海岛夏季多雾，冬季多风。据此完成 1～2 题。"
    assert island.cluster == wind.cluster != post.cluster
    assert (island.id, island.group, island.options) == ("Geography-0-0", "Geography", ("雾", "雪", "霜", "沙尘"))
    assert post.options == ("传递公文", "征收赋税", "开垦荒地", "选拔官员")
    assert post.context == ""
    assert force.options[force.answer] == "加倍"
    (place,) = read.left_out["several right answers"]
    assert place.endswith("2010-2022_Physics_MCQs.json: record 1")


def gaokao(**fields: Any) -> dict[str, Any]:
    return {"question": "问\nA. 一 B. 二 C. 三", "answer": ["A"], "index": 0, **fields}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (gaokao(question="图\nA.  B.  C.  D.\n"), "options not in the text"),
        (gaokao(answer=["A", "B"]), "several questions in one text, not told apart"),
        (gaokao(answer=[]), "no published answer"),
        (gaokao(question="问\nA. 一 B. 一 C. 三"), "two equal options, one of them the answer"),
    ],
)
def test_gaokao_left_out(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"example": [record, gaokao(index=1)]}), encoding="utf-8")
    read = read_task(load_task("gaokao-mcq"), [path])
    assert [q.id for q in read.questions] == ["x-1"]
    assert read.left_out == {reason: [f"{path}: record 1"]}
    assert read.told() == f"1 left out ({reason})"


def agieval(**fields: Any) -> dict[str, Any]:
    options = ["(A)一", "(B)二", "(C)三", "(D)四"]
    return {"passage": None, "question": "问", "options": options, "label": "B", **fields}


@pytest.mark.parametrize(
    ("fields", "answer", "options"),
    [
        ({}, "二", ("一", "二", "三", "四")),
        ({"label": ["D"]}, "四", ("一", "二", "三", "四")),
        # A print of two columns, read across: the label names the printed letter.
        ({"options": ["(A) 一", "C．三", "(B) 二", "D . 四"]}, "二", ("一", "二", "三", "四")),
        # A misprint: the place counts.
        ({"options": ["(A)一", "(C)二", "(C)三", "(D)四"]}, "二", ("一", "二", "三", "四")),
        ({"options": ["(A)一", "(B)二", "(C)一", "(D)四"]}, "二", ("一", "二", "一", "四")),
    ],
)
def test_agieval_options(tmp_path: Path, fields: dict[str, Any], answer: str, options: tuple[str, ...]) -> None:
    (q,) = read_questions(load_task("agieval-zh"), [lines(tmp_path / "part.jsonl", agieval(**fields))])
    assert (q.id, q.group, q.options, q.options[q.answer]) == ("part-1", "part", options, answer)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": ["A", "B"]}, "several right answers"),
        ({"label": "A C"}, "several right answers"),
        ({"label": []}, "no published answer"),
        ({"label": None}, "no published answer"),
        ({"options": ["(A)", "(B)二", "(C)三", "(D)四"]}, "an empty option"),
        ({"question": " "}, "an empty question"),
    ],
)
def test_agieval_left_out(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    path = lines(tmp_path / "part.jsonl", agieval(**fields), agieval())
    read = read_task(load_task("agieval-zh"), [path])
    assert [q.id for q in read.questions] == ["part-2"]
    assert read.left_out == {reason: [f"{path}:1"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "F"}, "the answer is 'F', but there are 4 options"),
        ({"label": 1}, "`label` must be a letter"),
        ({"options": "x"}, "the field 'options' must be a list"),
        ({"options": ["(A)x"]}, "`options` has 1 options; 2 to 10"),
        ({"passage": 3}, "`passage` must be a text"),
        ({"question": None}, "the field 'question' must be a str"),
    ],
)
def test_agieval_of_another_schema(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = lines(tmp_path / "part.jsonl", agieval(), agieval(**fields))
    with pytest.raises(BadInput, match=re.escape(f"{path}:2: {message}")):
        read_questions(load_task("agieval-zh"), [path])


LOGIC = {"id": 1, "text": "文", "question": "问", "options": ["一", "二", "一"], "answer": 1}


def test_published_sets_stay_whole_and_tell_their_defects(tmp_path: Path) -> None:
    records = [LOGIC, {**LOGIC, "id": 2, "answer": 0}, {**LOGIC, "id": 3, "options": ["", "二"]}]
    path = lines(tmp_path / "x.txt", *records, {**LOGIC, "id": 4, "text": " "})
    read = read_task(load_task("logiqa2-zh"), [path])
    assert [q.id for q in read.questions] == ["1", "2", "3"]
    assert read.left_out == {"no passage": [f"{path}:4"]}
    assert {k: [p.rsplit(":", 1)[1] for p in v] for k, v in read.noted.items()} == {
        "two equal options, neither the answer": ["1"],
        "two equal options, one of them the answer": ["2"],
        "an empty option": ["3"],
    }
    assert "1 kept with an empty option" in read.told()


@pytest.mark.parametrize("defects", ["drop", "refuse"])
def test_equal_options_when_dropped_or_refused(tmp_path: Path, defects: str) -> None:
    task = load_task("logiqa2-zh").model_copy(update={"defects": defects})
    path = lines(tmp_path / "x.txt", {**LOGIC, "id": 9, "options": ["一", "二"]}, {**LOGIC, "answer": 2})
    if defects == "refuse":
        with pytest.raises(BadInput, match=r"x\.txt:2: question '1' has two equal options, one of them the answer"):
            read_task(task, [path])
        return
    read = read_task(task, [path])
    assert [q.id for q in read.questions] == ["9"]
    assert list(read.left_out) == ["two equal options, one of them the answer"]
    read = read_task(task, [lines(tmp_path / "x.txt", LOGIC)])  # neither is the answer: still one right answer
    assert len(read.questions) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"options": ["蓝", "绿", "绿"], "answer": 0}, "two equal options"),
        ({"options": ["蓝", " "], "answer": 0}, "an empty option"),
        ({"options": ["蓝", "绿"], "answer": 0, "question": ""}, "an empty question"),
    ],
)
def test_users_files_are_refused_with_file_and_line(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    good = {"id": "q1", "question": "问", "options": ["蓝", "绿"], "answer": 0}
    path = lines(tmp_path / "mine.jsonl", good, {**good, "id": "q2", **record})
    for task in (load_task("microworld-facts"), mapped(id="id")):
        with pytest.raises(BadInput, match=rf"mine\.jsonl:2: question 'q2' has {message}"):
            read_task(task, [path])


def test_mapped_columns_of_csv(tmp_path: Path) -> None:
    rows = [
        ["问题", "甲", "乙", "丙", "答案", "科目"],
        ["天?", "蓝", "绿", "", "B", "s"],
        ["地?", "黄", "紫", "黑", "黄", "t"],
    ]
    write_csv(tmp_path / "q.csv", rows)
    task = mapped(question="问题", options=["甲", "乙", "丙"], answer="答案", group="科目")
    one, two = read_questions(task, [tmp_path / "q.csv"])
    assert (one.id, one.options, one.answer, one.group, one.context) == ("q-1", ("蓝", "绿"), 1, "s", "")
    assert (two.id, two.options, two.answer) == ("q-2", ("黄", "紫", "黑"), 0)


def test_mapped_paths_lists_and_passages_of_parquet(tmp_path: Path) -> None:
    record = {"k": 7, "stem": "问", "choices": {"text": ["一", "二"], "label": ["1", "2"]}, "answerKey": "2", "p": "文"}
    pq.write_table(pa.Table.from_pylist([record, {**record, "k": 8}]), tmp_path / "q.parquet")
    task = mapped(
        id="k",
        question="stem",
        options="choices.text",
        answer="answerKey",
        answer_is="number",
        context="p",
        cluster="p",
    )
    one, two = read_questions(task, [tmp_path / "q.parquet"])
    assert (one.id, two.id, one.answer, one.context, one.cluster) == ("7", "8", 1, "文", "文")


@pytest.mark.parametrize(
    ("answer", "how", "index"),
    [
        ("B", "auto", 1),
        ("（Ｂ）", "letter", 1),
        ("b", "letter", 1),
        ("绿", "auto", 1),
        (1, "auto", 1),
        ("1", "auto", 1),
        (2, "number", 1),
        ("绿", "text", 1),
        ("1", "index", 1),
    ],
)
def test_mapped_answers(tmp_path: Path, answer: Any, how: str, index: int) -> None:
    path = lines(tmp_path / "q.jsonl", {"question": "问", "options": ["蓝", "绿"], "answer": answer})
    (q,) = read_questions(mapped(answer_is=how), [path])
    assert q.answer == index


@pytest.mark.parametrize(
    ("fields", "record", "message"),
    [
        ({}, {"answer": "C"}, "the answer 'C' is none of the 2 options"),
        ({}, {"answer": 2}, "the answer 2 is none of the 2 options"),
        ({}, {"answer": True}, "the answer must be a letter, an index or an option's text, found True"),
        ({}, {"answer": None}, "the answer must be"),
        ({"answer_is": "number"}, {"answer": 0}, "the answer 0 is none of the 2 options (expected the number of one)"),
        ({}, {"options": ["B", "A"], "answer": "A"}, "the answer 'A' can be read in two ways; set fields.answer_is"),
        ({}, {"options": ["1", "0"], "answer": 0}, "the answer 0 can be read in two ways"),
        ({}, {"options": {"A": "x"}}, "fields.options ('options') must be a list"),
        ({}, {"options": "[1"}, "fields.options ('options') is no JSON list"),
        ({}, {"options": ["x", None]}, "every option must be a text or a number"),
        ({}, {"options": ["x"]}, "`options` has 1 options; 2 to 10 are supported"),
        ({"answer": "key"}, {}, "'key', named by fields.answer, is missing; there are: question, options, answer"),
        ({"options": "choices.text"}, {}, "'choices.text', named by fields.options, is missing"),
        ({}, {"question": 3}, "fields.question ('question') must be a text"),
    ],
)
def test_mapped_mistakes_name_line_and_field(
    tmp_path: Path, fields: dict[str, Any], record: dict[str, Any], message: str
) -> None:
    path = lines(tmp_path / "q.jsonl", {"question": "问", "options": ["蓝", "绿"], "answer": "蓝", **record})
    with pytest.raises(BadInput, match=re.escape(f"{path}:1: {message}")):
        read_questions(mapped(**fields), [path])


@pytest.mark.parametrize(
    ("name", "out", "noted"),
    [("c3_dev", {}, 1), ("c3_train", {}, 5), ("logiqa2_zh_dev", {}, 7), ("logiqa2_en_dev", {}, 4)],
)
def test_defects_of_the_real_files(real_data: Path, name: str, out: dict[str, Any], noted: int) -> None:
    tasks = ("c3-d", "c3-m") if name.startswith("c3") else (name.removesuffix("_dev").replace("_", "-"),)
    reads = [read_task(load_task(t), [real_data / "eval" / f"{name}.jsonl.zst"]) for t in tasks]
    assert all(r.left_out == out for r in reads)
    assert sum(len(places) for r in reads for places in r.noted.values()) == noted

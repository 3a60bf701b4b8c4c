import re
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.tasks.load import list_tasks, load_task
from pandallm.tasks.open import open_examples, open_task, task_status
from tests.tasks.records import FILES, write_records

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANDA_TASKS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def block(kind: str) -> str:
    match = re.search(rf"```{kind}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    return match[1]


def test_the_ten_line_yaml_of_the_documentation(tmp_path: Path) -> None:
    assert len(block("yaml").splitlines()) <= 10
    (tmp_path / "rivers.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "rivers.csv").write_text(block("csv"), encoding="utf-8")
    task, read = open_task(str(tmp_path / "rivers.yaml"))
    assert (task.name, task.split) == ("rivers", "")
    assert [(q.id, q.options[q.answer], len(q.options), q.group) for q in read.questions] == [
        ("rivers-1", "长江", 3, "地理"),
        ("rivers-2", "南海", 2, "地理"),
    ]
    assert open_examples(str(tmp_path / "rivers.yaml")) == []


def test_the_documentation_lists_every_task_with_its_published_number() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name in list_tasks():
        if not name.startswith("microworld-"):
            task = load_task(name)
            row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` "))
            assert f"{task.questions[task.split]:,}" in row
            assert row.split("|")[3].split(",")[0].strip() == task.split


@pytest.mark.parametrize("name", sorted(n for n in FILES if load_task(n).examples))
def test_examples_come_from_their_own_split(tmp_path: Path, name: str) -> None:
    folder = write_records(name, tmp_path / "data")
    examples = open_examples(name, folder)
    _, read = open_task(name, folder)
    assert examples
    assert not {(q.context, q.question) for q in examples} & {(q.context, q.question) for q in read.questions}
    if name in ("ceval", "cmmlu"):
        assert {q.group for q in examples} == {q.group for q in read.questions}


def test_examples_beside_the_file_in_the_cache_or_told_missing(tmp_path: Path, cache: Path) -> None:
    folder = write_records("c3-m", tmp_path / "data")
    (beside,) = open_examples("c3-m", folder / "c3-m-test.json")
    (folder / "c3-m-train.json").rename(tmp_path / "kept.json")
    with pytest.raises(
        BadInput, match=r"Few-shot examples of c3-m come from its train split\. The train split of c3-m is"
    ):
        open_examples("c3-m", folder)
    (cache / "c3-m").mkdir(parents=True)
    (tmp_path / "kept.json").rename(cache / "c3-m" / "c3-m-train.json")
    (cached,) = open_examples("c3-m", folder)
    assert cached == beside
    assert open_examples("gaokao-mcq") == []


def test_examples_of_a_users_task_are_a_file_beside_its_yaml(tmp_path: Path) -> None:
    text = block("yaml") + "examples: shots.csv\n"
    (tmp_path / "rivers.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "shots.csv").write_text(block("csv"), encoding="utf-8")
    assert len(open_examples(str(tmp_path / "rivers.yaml"))) == 2


def test_status_tells_what_is_here_and_how_to_get_the_rest(tmp_path: Path, cache: Path) -> None:
    folder = write_records("gaokao-mcq", tmp_path / "data")
    write_records("c3-m", cache / "c3-m")
    status = {(s.name, s.split): s for s in task_status([folder])}
    assert {name for name, _ in status} == set(list_tasks())
    gaokao = status["gaokao-mcq", "test"]
    assert (gaokao.n, gaokao.expected, gaokao.default, len(gaokao.files)) == (4, 1539, True, 3)
    assert gaokao.told == "1 left out (several right answers)"
    assert status["c3-m", "test"].n == 2
    assert status["c3-m", "train"].n == 1
    assert not status["c3-m", "train"].default
    missing = status["c3-m", "dev"]
    assert (missing.n, missing.files, missing.told) == (None, (), "")
    assert "--download" in missing.get
    assert "https://github.com/nlpdata/c3" in missing.get
    assert "recipe" in status["microworld-facts", ""].get
    with pytest.raises(BadInput, match="is no folder"):
        task_status([tmp_path / "no"])


def test_status_of_broken_files_tells_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c3-m-test.json").write_text("[[1]]", encoding="utf-8")
    broken = next(s for s in task_status([tmp_path]) if (s.name, s.split) == ("c3-m", "test"))
    assert broken.n is None
    assert broken.files
    assert "expected [[turns]" in broken.told

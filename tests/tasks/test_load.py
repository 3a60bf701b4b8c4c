import re
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.tasks.load import list_tasks, load_task, split_name, task_hash
from pandallm.tasks.spec import TaskSpec

#: version and task_hash of every built-in task.
GOLDEN: dict[str, tuple[int, str]] = {
    "agieval-zh": (1, "be4bf3e16144d3ff5fe208c2191ce82fd4bec2f4f764b5626552c2b08f91104b"),
    "c3-d": (2, "fd8adcdddc8930043b41396f95a4f11ede066303086ea371125b8df05be87c1d"),
    "c3-m": (2, "8fe685fe7f0a3c9de5c7d2170c68c0127f4d3b69e39e7a0e8e90e289ad8158d9"),
    "ceval": (1, "8ffa293e1b0cf8a60c0be633717b81fca6adf095cc72e2d000e843df52b574af"),
    "cmmlu": (1, "d45114bdb3b607d969ff06713f4bc89544425d4993318a0d0359ef7336938f28"),
    "gaokao-mcq": (1, "1e828428bdfd4111fe599331b0d3c88444585b60114b78dea784e68ce950e708"),
    "logiqa2-en": (2, "1a1585b325a77c5c2e734a531aa83cb54da307bdeef58943f1b525d0c79d1f27"),
    "logiqa2-zh": (2, "b8d51fed34d9a2b7f7ff0e5c1d47b51cdc94d0a7e0c5bbcd4d739f519859db3b"),
    "microworld-facts": (1, "707fa0950932011fa2241d96d70f02c988d6eb3c04d51bac7733cd15de276d32"),
    "microworld-never-seen": (1, "707fa0950932011fa2241d96d70f02c988d6eb3c04d51bac7733cd15de276d32"),
    "microworld-options": (1, "024414a5b731e8b49174bc3d51c5f1905a1dabef0a04dee018df76a9bd4d84bf"),
    "microworld-reading": (1, "80eadc0296baff05b287bb985e7f9cad04618d63eb6dfefaf66292346ded44bd"),
    "microworld-rules": (1, "80eadc0296baff05b287bb985e7f9cad04618d63eb6dfefaf66292346ded44bd"),
    "microworld-shuffled": (1, "707fa0950932011fa2241d96d70f02c988d6eb3c04d51bac7733cd15de276d32"),
}


def test_golden_hashes() -> None:
    found = {name: (load_task(name).version, task_hash(load_task(name))) for name in list_tasks()}
    assert found == GOLDEN, "bytes changed: bump version, then store the new hash here"


def test_hash_covers_what_changes_scores_and_nothing_else() -> None:
    task = load_task("c3-m")
    for same in (
        {"title": "x", "licence": "x", "source": "x", "version": 99, "near_chance": "x"},
        {"files": "elsewhere.json", "urls": {}, "sha256": {}, "patterns": {}, "questions": {}, "name": "renamed"},
    ):
        assert task_hash(task.model_copy(update=same)) == task_hash(task)
    letter = task.prompts["letter"]
    for other in (
        {"split": "dev"},
        {"where": {"type": "d"}},
        {"reader": "mcq"},
        {"defects": "drop"},
        {"examples": ""},
        {"passage": False},
        {"prompts": {**task.prompts, "letter": letter.model_copy(update={"template": letter.template + " "})}},
        {"prompts": {**task.prompts, "letter": letter.model_copy(update={"unconditional": "答："})}},
        {"prompts": {"letter": letter}},
    ):
        assert task_hash(task.model_copy(update=other)) != task_hash(task), other
    mapped = {"name": "m", "reader": "mapped", "prompts": {"p": {"template": "{question}"}}}
    one = TaskSpec.model_validate({**mapped, "fields": {"answer": "key"}})
    two = TaskSpec.model_validate({**mapped, "fields": {"answer": "key", "answer_is": "number"}})
    assert task_hash(one) != task_hash(two)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("c3-m", ("c3-m", "")), ("c3-m:dev", ("c3-m", "dev")), ("a/my.yaml:test", ("a/my.yaml", "test"))],
)
def test_split_name(text: str, parts: tuple[str, str]) -> None:
    assert split_name(text) == parts


def test_split_of_the_name_wins_over_the_default() -> None:
    assert load_task("c3-m").split == "test"
    assert load_task("c3-m:dev").split == "dev"
    assert load_task("ceval").split == "val"
    with pytest.raises(BadInput, match=re.escape("Task ceval has no split 'test'; it has dev, val.")):
        load_task("ceval:test")
    with pytest.raises(BadInput, match="has no splits"):
        load_task("microworld-facts:test")


def test_fields_go_with_the_mapped_reader(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\nreader: mcq\nfields: {answer: key}\nprompts: {p: {template: a}}", encoding="utf-8")
    with pytest.raises(BadInput, match="'fields' names the columns"):
        load_task(path)
    path.write_text("name: x\nreader: mapped\nfields: {anwser: key}\nprompts: {p: {template: a}}", encoding="utf-8")
    with pytest.raises(BadInput, match="Did you mean 'answer'"):
        load_task(path)
    path.write_text("name: x\nreader: mcq\nprompts: {p: {template: a, unconditional: '{x}'}}", encoding="utf-8")
    with pytest.raises(BadInput, match=re.escape("prompts.p.unconditional: unknown placeholder {x}")):
        load_task(path)

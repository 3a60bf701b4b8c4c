import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pandallm.pipeline.show_tasks import print_task_list
from pandallm.tasks.open import task_status
from tests.tasks.records import write_records


def test_the_list_says_what_is_here_missing_and_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PANDA_TASKS", str(tmp_path / "cache"))
    write_records("c3-m", tmp_path)
    write_records("gaokao-mcq", tmp_path)
    (tmp_path / "test_zh.txt").write_text("{}", encoding="utf-8")
    statuses = task_status([tmp_path])
    out = io.StringIO()
    print_task_list(statuses, console=Console(file=out, width=100))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert next(r for r in rows if r[:2] == ["c3-m", "test"])[2:6] == ["*", "2", "of", "2002"]
    assert next(r for r in rows if r[:2] == ["ceval", "val"])[2:4] == ["*", "missing"]
    assert next(r for r in rows if r[:2] == ["logiqa2-zh", "test"])[2:4] == ["*", "broken"]
    assert next(r for r in rows if r[:1] == ["microworld-facts"])[1:5] == ["made", "by", "a", "run"]
    assert "gaokao-mcq:test: 1 left out (several right answers)" in out.getvalue()
    how = out.getvalue().split("Not here, and how to get it:")[1]
    assert "ceval: fetch it with --download" in how
    assert "Licence: CC BY-NC-SA 4.0." in how
    assert how.count("made by a recipe with a world") == 1
    assert "\nc3-m:" not in how
    print_task_list(statuses, as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == len(statuses)
    assert next(s for s in listed if s["name"] == "c3-m" and s["split"] == "test")["files"] == [
        str(tmp_path / "c3-m-test.json")
    ]

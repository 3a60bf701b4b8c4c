"""`panda harness`."""

import json
from pathlib import Path

import pytest

from pandallm.cli import main
from tests.parity.small import write_c3


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    out = capsys.readouterr()
    return int(e.value.code or 0), out.out, out.err


@pytest.mark.parametrize("verb", ["task", "results", "run", "register"])
def test_help_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = panda(capsys, "harness", verb, "--help")
    assert status == 0
    assert f"Example: panda harness {verb}" in out


def test_task_writes_every_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_c3(tmp_path / "c3-m-dev.json", "m", 3, 1)
    data = str(tmp_path / "c3-m-dev.json")
    status, out, _ = panda(capsys, "harness", "task", "c3-m", "--data", data, "--out", str(tmp_path / "h"), "--json")
    assert status == 0
    facts = json.loads(out)
    assert {"c3-m_letter", "c3-m_text", "c3-m_paper", "c3-m_natural"} <= set(facts["tasks"])
    assert facts["left_out_for_an_empty_option"] == 0
    assert all(Path(f).is_file() and Path(f).with_suffix(".jsonl").is_file() for f in facts["files"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["task", "c3-x", "--data", "x", "--out", "h"], "There is no task 'c3-x'"),
        (["task", "c3-m", "--data", "nowhere.json", "--out", "h"], "nowhere.json"),
        (["results", "nowhere", "--out", "h"], "nowhere holds no evaluation"),
        (["register", "--folder", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = panda(capsys, "harness", *arguments)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_harness_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = panda(capsys, "harness", "run", "--tasks", "mmlu")
    assert code == 2
    assert "pip install 'pandallm[lm-eval]'" in err

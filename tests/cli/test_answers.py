import json
from pathlib import Path

import pytest

from tests.cli.test_cli import panda
from tests.evaluate.conftest import model_folder  # noqa: F401 (a fixture)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--out", "o"], "nowhere is not a folder"),
        (["nowhere"], "--out is missing"),
        (["nowhere", "--out", "o", "--judge", "http://x/v1"], "--judge and --judge-model belong together"),
        (["nowhere", "--votes", "v.json"], "nowhere is not a folder of panda answers"),
        (["a", "b", "--votes", "v.json"], "--votes takes one folder"),
        (["nowhere", "--out", "o", "--prompts", "p.csv"], "give a .jsonl or .yaml file, or builtin"),
        (["nowhere", "--out", "o", "--prompts", "p.jsonl"], "p.jsonl does not exist"),
        (["nowhere", "--out", "o", "--dtype", "int8"], "--dtype int8 is unknown"),
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
    code, out, err = panda(capsys, "answers", *arguments)
    assert code == 2, err
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = panda(capsys, "answers", "--help")
    assert code == 0
    assert "Example: panda answers" in out


def test_answers_then_votes(
    model_folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "p", "turns": ["hi"]}\n{"id": "q", "turns": ["ho"]}\n')
    out = tmp_path / "out"
    options = [
        "--prompts",
        str(tmp_path / "p.jsonl"),
        "--out",
        str(out),
        "--max-new-tokens",
        "4",
        "--device",
        "cpu",
        "--quiet",
    ]
    code, text, err = panda(capsys, "answers", f"a={model_folder}", f"b={model_folder}", *options)
    assert code == 0, err
    assert "a: 2 answers" in text
    assert str(out / "answers.html") in text
    code, _, err = panda(capsys, "answers", str(out))
    assert code == 2
    assert "holds answers already" in err
    digest = json.loads((out / "answers.json").read_text(encoding="utf-8"))["digest"]
    votes = tmp_path / "votes.json"
    votes.write_text(json.dumps({"version": 1, "digest": digest, "votes": {"p": [1, 1]}}))
    code, text, err = panda(capsys, "answers", "--votes", str(votes), str(out), "--json")
    assert code == 0, err
    assert json.loads(text)["pairs"][0]["ties"] == 1
    code, text, _ = panda(capsys, "answers", str(out), "--votes", str(votes))
    assert "1 of 2 prompts voted on" in text

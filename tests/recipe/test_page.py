"""docs/recipes.md: all recipes are there, and the commands and the output it shows are real."""

import re
import shlex
from pathlib import Path

import pytest

from pandallm.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def panda(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    out = capsys.readouterr()
    assert e.value.code == 0, out.err
    return out.out


def test_every_recipe_is_on_the_page_and_no_other() -> None:
    table = PAGE.split("\n## ")[0]
    named = {n for line in re.findall(r"^\| (`.+?) \|", table, re.M) for n in re.findall(r"`([\w-]+)`", line)}
    assert named == {p.stem for p in (ROOT / "recipes").glob("*.yaml")} | {"microworld"}


def test_the_shown_commands_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "panda"
        assert panda(words[1:], capsys)


def test_the_shown_difference_is_what_panda_diff_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    said = panda(["diff", "recipes/panda-7b.yaml", "recipes/panda-7b-as-coded.yaml"], capsys)
    shown = re.findall(r"```\n(Settings\n.*?)```", PAGE, re.S)[0]
    settings, stages = shown.split("\n\n")
    assert settings in said
    assert stages in said


def test_the_table_of_plans_is_what_the_command_makes() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("plan_table", ROOT / "tools" / "plan_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.shown() == module.table(), "run: python tools/plan_table.py --write"

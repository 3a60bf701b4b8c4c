"""Commands and links of every page in docs/: what is shown can be typed."""

import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

from pandallm.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def shown_commands(page: Path) -> list[str]:
    """The lines of code blocks, fenced or indented, that call `panda`; continuation lines joined."""
    lines = page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r"\s*(?:[A-Z_]+=\S+\s+)*panda\s", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_shown_commands_have_verbs_and_options_that_exist(page: Path) -> None:
    for line in shown_commands(page):
        words = shlex.split(line, comments=True)
        words = words[words.index("panda") + 1 :]
        command = get_command(app)
        context = click.Context(command, info_name="panda")
        while isinstance(command, click.Group):
            name, command, words = command.resolve_command(context, words)
            assert command is not None, line
            context = click.Context(command, info_name=name, parent=context)
        if command.context_settings.get("ignore_unknown_options"):
            continue  # handed to another program
        # Parses types and unknown options as a call would, and calls nothing.
        command.make_context("panda", [w for w in words if w not in (">", "|")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            assert (page.parent / target).exists(), target

"""Every command that the READMEs show. The two `sh` blocks are run by .ci/run, exactly as printed."""

import os
import re
import shutil
from pathlib import Path

from tests.end_to_end.conftest import panda

ROOT = Path(__file__).resolve().parents[2]

#: What makes a shown command small enough for a test; everything else is as printed.
TINY = (
    "base.scratch.architecture.hidden_size=32",
    "base.scratch.architecture.intermediate_size=64",
    "base.scratch.tokenizer.size=4500",
    "base.scratch.train.tokens=8000",
    "corpora.english.sources.wiki.max_records=60",
    "corpora.english.sources.web.max_records=120",
    "corpora.english.sources.prose.max_records=80",
    "corpora.english.held_out.documents=4",
    "corpora.chinese.sources.wiki.max_records=200",
    "corpora.chinese.sources.news.max_records=200",
    "corpora.chinese.sources.baike_qa.max_records=200",
    "corpora.chinese.sources.webtext_qa.max_records=200",
    "corpora.chinese.sources.translation.max_records=200",
    "corpora.chinese.held_out.documents=4",
    "corpora.instructions.sources.alpaca.max_records=200",
    "corpora.instructions.sources.exam.max_records=50",
    "stages.pretrain.tokens=8000",
    "stages.instruct.tokens=4000",
    "evaluate.limit.likelihood=4",
    "evaluate.limit.generation=2",
    "runtime.threads=1",
    "runtime.workers=1",
)


def blocks(language: str, page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def test_the_first_two_blocks_are_the_same_in_both_languages_and_ask_for_nothing_else() -> None:
    english, chinese = blocks("sh", "README.md"), blocks("sh", "README.zh-CN.md")
    assert english == chinese
    assert len(english) == 2
    assert english[0].rstrip().endswith("&& panda run")
    assert "pytest" in english[1]
    strip = [[re.sub(r"\s*#.*", "", line) for line in b.splitlines()] for b in blocks("bash", "README.md")]
    assert strip == [
        [re.sub(r"\s*#.*", "", line) for line in b.splitlines()] for b in blocks("bash", "README.zh-CN.md")
    ]


def test_every_shown_panda_command_runs(tmp_path: Path, real_data: Path) -> None:
    for folder in ("recipes", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    ran = []
    for line in "".join(blocks("bash", "README.md")).splitlines():
        command = [word.replace("my-data", str(real_data)) for word in re.sub(r"\s*#.*", "", line).split()]
        environment = {}
        while command and "=" in command[0]:
            name, _, value = command.pop(0).partition("=")
            environment[name] = value
        if not command or command[0] != "panda":
            continue
        if "recipes/smollm2-zh.yaml" in command:
            command[1] = "check"  # run by tests/end_to_end/test_smollm2.py where the model is installed
        elif command[1] == "run":
            command += TINY
        elif "--limit-passages" in command:
            command[command.index("--limit-passages") + 1] = "2"
        panda(*command[1:], folder=tmp_path, **environment)
        ran.append(command[1])
    assert ran == [
        "check",
        "run",
        "check",
        "data",
        "data",
        "data",
        "eval",
        "eval",
        "eval",
        "compare",
        "plan",
        "diff",
        "study",
    ]
    assert (tmp_path / "compare.html").is_file()
    run = tmp_path / "runs" / "tiny-zh-seed42"
    assert (run / "report.html").is_file()
    assert {p.name for p in (run / "models").iterdir()} == {"base", "pretrain", "instruct"}


def test_verbs_in_the_table_exist() -> None:
    from pandallm.cli import app, delta_app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    known |= {group.name for group in app.registered_groups}
    shown = set(re.findall(r"^\| `panda (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M))
    assert shown == known
    assert {c.name for c in delta_app.registered_commands} == {"make", "apply", "verify", "inspect"}


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "README.zh-CN.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), (page, target)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

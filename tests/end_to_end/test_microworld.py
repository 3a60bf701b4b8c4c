"""The whole house on a small microworld: what a user sees, and the promises that only a whole run can show."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pandallm.report.questions import unpack
from pandallm.store import digest_folder, read_json, read_jsonl
from tests.end_to_end.conftest import SMALL, panda


def test_the_json_object_holds_the_headline(small_run: tuple[Path, dict[str, Any]]) -> None:
    _, result = small_run
    headline = result["headline"]
    assert set(headline) == {"base", "pretrain", "instruct", "controls"}
    assert len(headline["controls"]) >= 3
    for score in [headline["base"], headline["pretrain"], headline["instruct"], *headline["controls"].values()]:
        assert 0 <= score["low"] <= score["accuracy"] <= score["high"] <= 1
    assert result["delta"]["verified"] is True
    assert result["reused"] == []


def test_the_run_folder_is_complete_and_real(small_run: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, result = small_run
    run = Path(result["run"])
    manifest = read_json(run / "manifest.json")
    assert manifest["state"] == "complete"
    kinds = [s["kind"] for s in manifest["stages"]]
    assert {"world", "clean", "tokenizer", "init", "pack", "train", "evaluate", "delta"} <= set(kinds)
    for stage in ("base", "pretrain", "instruct"):
        steps = read_json(run / "ledgers" / f"pack-{stage}.json")["steps"]
        assert [row["step"] for row in read_jsonl(run / "metrics" / f"{stage}.jsonl")] == list(range(1, steps + 1))
        model = AutoModelForCausalLM.from_pretrained(run / "models" / stage)
        assert model.config.model_type == "llama"
    tokenizer = AutoTokenizer.from_pretrained(run / "models" / "instruct")
    assert (
        tokenizer.decode(tokenizer.encode("问题：她住在哪里？ Where?", add_special_tokens=False))
        == "问题：她住在哪里？ Where?"
    )
    assert "instruct" in (run / "model_card.md").read_text(encoding="utf-8")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "</html>" in page


def test_ledgers_add_up_from_files(small_run: tuple[Path, dict[str, Any]]) -> None:
    run = Path(small_run[1]["run"])
    cleaned = [p for p in (run / "ledgers").glob("*.json") if not p.name.startswith("pack-")]
    assert len(cleaned) == 3
    for path in cleaned:
        for source, s in read_json(path)["sources"].items():
            parts = [s["kept"], s["held_out"], s["quarantined"], *s["dropped"].values()]
            assert sum(p["records"] for p in parts) == s["records"], (path.name, source)
            assert sum(p["bytes"] for p in parts) == s["bytes"], (path.name, source)


def test_a_second_run_makes_nothing_again(small_run: tuple[Path, dict[str, Any]]) -> None:
    folder, first = small_run
    before = read_json(Path(first["run"]) / "scores.json")
    again = json.loads(panda("run", "seed=7", *SMALL, "--json", folder=folder).stdout)
    assert again["made"] == []
    assert again["headline"] == first["headline"]
    assert read_json(Path(first["run"]) / "scores.json") == before
    # Another number of threads or another folder is not another result; another learning rate in the last stage re-makes only what follows it.
    changed = json.loads(
        panda("run", "seed=7", *SMALL, "stages.instruct.optimizer.lr=1e-5", "--json", folder=folder).stdout
    )
    assert "train pretrain" in changed["reused"]
    assert "pack instruct" in changed["reused"]
    assert "train instruct" in changed["made"]
    assert not [name for name in changed["made"] if "evaluate base" in name or "evaluate pretrain" in name]


def test_verify_rebuilds_the_scores_and_notices_a_changed_one(
    small_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import shutil

    folder, _ = small_run
    copy = tmp_path / "run"
    source = folder / "runs" / "microworld-seed7"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("models", "delta"), symlinks=True)
    assert json.loads(panda("verify", str(copy), "--json", folder=folder).stdout)["numbers"] > 50
    scores = read_json(copy / "scores.json")
    scores["headline"]["instruct"]["accuracy"] += 0.01
    (copy / "scores.json").write_text(json.dumps(scores))
    done = panda("verify", str(copy), folder=folder, check=False)
    assert done.returncode == 1
    assert "headline.instruct.accuracy" in done.stderr


def test_killed_anywhere_it_goes_on_to_the_same_weights(small_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = small_run
    panda("run", "seed=7", *SMALL, folder=folder)  # the links point to this seed's settings again
    expected = digest_folder(folder / "runs" / "microworld-seed7" / "models" / "instruct")
    command = [sys.executable, "-m", "pandallm", "run", "seed=7", *SMALL, "runtime.save_every_seconds=0.001"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for delay in (6.0, 9.0, 11.0):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    panda("run", "seed=7", *SMALL, folder=tmp_path)
    assert digest_folder(tmp_path / "runs" / "microworld-seed7" / "models" / "instruct") == expected


def test_a_run_out_of_time_is_saved_and_goes_on(small_run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = small_run
    command = ("run", "seed=7", *SMALL, "name=stopped", "stages.instruct.optimizer.lr=3e-5")
    stopped = panda(*command, "runtime.stop_after_minutes=0.0001", folder=folder, check=False)
    assert stopped.returncode == 3
    assert "is saved: run the same command again to go on" in stopped.stderr
    assert read_json(folder / "runs" / "stopped-seed7" / "manifest.json")["state"] == "interrupted"
    panda(*command, folder=folder)
    assert read_json(folder / "runs" / "stopped-seed7" / "manifest.json")["state"] == "complete"


def test_a_model_folder_serves_as_base(small_run: tuple[Path, dict[str, Any]]) -> None:
    folder, result = small_run
    base = Path(result["run"]) / "models" / "base"
    more = (
        "name=imported",
        "base.scratch=null",
        f"base.model={base}",
        "evaluate.tasks=[microworld-facts]",
        "evaluate.controls={}",
    )
    imported = json.loads(panda("run", "seed=7", *SMALL[:4], *SMALL[-5:], *more, "--json", folder=folder).stdout)
    assert imported["made"][0] == "import base"
    assert imported["delta"]["verified"] is True
    same = [(Path(r["run"]) / "models" / "base" / "model.safetensors").read_bytes() for r in (result, imported)]
    assert same[0] == same[1]


def page_text(path: Path) -> str:
    """A report's page, with what its script unpacks."""
    page = path.read_text(encoding="utf-8")
    packed = re.search(r'<script[^>]*type="application/gzip"[^>]*>([^<]+)</script>', page)
    return page + (json.dumps(unpack(packed[1]), ensure_ascii=False) if packed else "")


def test_report_without_text_holds_no_question(small_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = small_run
    out = tmp_path / "page.html"
    panda("report", result["run"], "--no-text", "--out", str(out), folder=folder)
    page = page_text(out)
    questions = list(read_jsonl(Path(result["run"]) / "questions.jsonl"))
    assert questions[0]["question"] in page_text(Path(result["run"]) / "report.html")
    assert not [q["id"] for q in questions if q["question"] and q["question"] in page]


def test_single_verbs_work_on_the_models_of_a_run(small_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, result = small_run
    models = Path(result["run"]) / "models"
    base, target = str(models / "base"), str(models / "instruct")
    panda("delta", "make", base, target, str(tmp_path / "delta"), folder=tmp_path)
    panda("delta", "apply", base, str(tmp_path / "delta"), str(tmp_path / "back"), folder=tmp_path)
    panda("delta", "verify", base, str(tmp_path / "delta"), str(tmp_path / "back"), folder=tmp_path)
    assert digest_folder(tmp_path / "back") == digest_folder(Path(target))
    wrong = panda(
        "delta",
        "apply",
        str(models / "pretrain"),
        str(tmp_path / "delta"),
        str(tmp_path / "x"),
        folder=tmp_path,
        check=False,
    )
    assert wrong.returncode == 2
    assert "Wrong base" in wrong.stderr
    assert not (tmp_path / "x").exists()
    c3 = [
        [
            ["男：你好。", "女：再见。"],
            [{"question": "女的说什么？", "choice": ["你好", "再见"], "answer": "再见"}],
            "m-1",
        ]
    ]
    (tmp_path / "c3.json").write_text(json.dumps(c3, ensure_ascii=False), encoding="utf-8")
    done = panda("eval", target, "--tasks", "c3-m", "--data", "c3.json", "--out", "scored", "--json", folder=tmp_path)
    assert {row["task"] for row in json.loads(done.stdout)["table"]} == {"c3-m"}
    rows = list(read_jsonl(tmp_path / "scored" / "rows.jsonl"))
    assert len(rows) >= 1
    verified = panda("verify", "scored", "--json", folder=tmp_path)
    assert json.loads(verified.stdout)["rows"] == len(rows)
    chat = subprocess.run(
        [sys.executable, "-m", "pandallm", "chat", target, "--max-new-tokens", "4"],
        input="你好\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert chat.returncode == 0, chat.stderr


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("corpora.chinese.sources.wiki2019zh.files=nowhere/*.json",), "corpora.chinese.sources.wiki2019zh.files"),
        (("corpora.chinese.sources.wiki2019zh.files=empty.jsonl",), "empty.jsonl"),
        (("corpora.chinese.sources.wiki2019zh.files=broken.jsonl",), "broken.jsonl"),
        (("base.scratch=null", "base.model=nomodel"), "nomodel"),
    ],
)
def test_bad_input_stops_before_training(overrides: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"id": \n')
    (tmp_path / "nomodel").mkdir()
    done = panda("run", *SMALL, *overrides, "--quiet", folder=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "microworld-seed42" / "models").exists()
